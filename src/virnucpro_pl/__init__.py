"""Which of these reads are viral? VirNucPro's method, rebuilt on PyTorch Lightning and Hydra."""

__version__ = "0.1.0"
