"""From scores to the files a user reads. Imports neither torch nor lightning."""
