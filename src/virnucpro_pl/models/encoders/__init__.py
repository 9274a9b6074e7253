"""Encoders of packed batches. Imports torch, not Lightning."""
