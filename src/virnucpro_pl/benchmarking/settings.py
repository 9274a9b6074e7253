"""How much is measured."""

from typing import NamedTuple

import torch

from virnucpro_pl.errors import UserError

_CUDA_READS, _CPU_READS = 20_000, 200
_CODON = 3


class Settings(NamedTuple):
    """How much is measured."""

    reads: int
    """Synthetic reads of each length"""
    read_lengths: list[int]
    """Bases of a read; each length is measured by itself"""
    encoder_batches: int
    """Batches, evenly spread over the plan, on which an encoder is timed by itself"""
    baseline_sequences: int
    """Proteins for fair-esm and transformers; 0 leaves them out"""
    one_by_one_sequences: int
    """Nucleotide sequences for DNABERT-S one at a time; 0 leaves it out"""
    precision_sequences: int
    """ORFs on which precisions are compared; 0 leaves it out"""
    repeats: int
    """Passes of which the median counts"""
    matrix_seconds: float
    """Time for which matrix products are sustained"""
    seed: int
    """Of reads and weights"""

    def check(self) -> None:
        """Raise UserError for a value that nothing can be measured with."""
        for key, least in (("reads", 1), ("encoder_batches", 1), ("repeats", 1), ("baseline_sequences", 0)):
            _check(key, getattr(self, key), least)
        for key in ("one_by_one_sequences", "precision_sequences", "seed"):
            _check(key, getattr(self, key), 0)
        if not self.read_lengths:
            raise UserError("read_lengths=[]: give at least one length in bases, such as read_lengths=[150,500]")
        for length in self.read_lengths:
            _check("read_lengths", length, _CODON)
        if not isinstance(self.matrix_seconds, int | float) or self.matrix_seconds <= 0:
            raise UserError(f"matrix_seconds={self.matrix_seconds}: give a time above 0, in seconds")


def _check(key: str, value: object, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise UserError(f"{key}={value}: give a whole number of at least {least}")


def default_reads(device: torch.device) -> int:
    """As many as keep the device busy for a while."""
    return _CUDA_READS if device.type == "cuda" else _CPU_READS
