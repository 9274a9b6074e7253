"""Model: encoders, head and the LightningModule that joins them."""
