"""Files that are complete or absent: atomic writes, digests, locks and names. Imports nothing heavy."""
