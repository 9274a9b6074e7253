"""From the ORF store to packed batches."""
