"""Atomic writes, digests, locks and names of files. Imports nothing heavy."""
