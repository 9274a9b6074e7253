"""An output folder and its run: lock, fingerprint, score shards, starts and run record. Imports no torch."""
