"""The machine that the program runs on: time, memory, streams, signals and launchers."""
