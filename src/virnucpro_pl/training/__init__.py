"""Datasets, training of heads, and tests of them."""
