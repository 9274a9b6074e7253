"""Lightning callbacks: writing parts, timing, throughput, progress."""
