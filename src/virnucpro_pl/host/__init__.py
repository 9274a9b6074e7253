"""The host: clock, memory, streams, signals and launchers."""
