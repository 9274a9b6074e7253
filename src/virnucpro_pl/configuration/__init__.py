"""The configuration: what Hydra composes, and the objects built from it."""
