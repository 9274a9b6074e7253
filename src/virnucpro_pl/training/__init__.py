"""Datasets of labelled genomes, and training and test of heads."""
