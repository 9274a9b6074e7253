"""From sequence files to ORFs: reading, chunking, translating, storing. Imports neither torch nor lightning."""
