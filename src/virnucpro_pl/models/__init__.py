"""The model: encoders, classifier head and the LightningModule that joins them."""
