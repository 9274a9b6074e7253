"""The two language models, on packed batches. Imports torch, never lightning."""
