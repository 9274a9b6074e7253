"""One short file per command: build from the configuration, run, return a figure."""
