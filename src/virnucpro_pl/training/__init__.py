"""Genomes to datasets, training of heads, and tests of them."""
