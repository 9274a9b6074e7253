"""The command line: words, flags, checks of settings, sweeps and the log file."""
