"""Fetching files from servers that may be slow, busy or wrong."""
