"""Sequence files to ORFs: readers, chunks, translation, ORF store. Imports neither torch nor Lightning."""
