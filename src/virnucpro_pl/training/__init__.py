"""From genomes to a head: getting them, labelling, training and testing."""
