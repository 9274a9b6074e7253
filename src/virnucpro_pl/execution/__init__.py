"""What commands share that run a model: trainer, fingerprint of a run, encoder runs."""
