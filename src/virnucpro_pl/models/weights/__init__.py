"""Weights: finding, downloading, checking and converting them, without running code in weight files."""
