"""Several processes, one run: strategy, heartbeat and what the first rank decides."""
