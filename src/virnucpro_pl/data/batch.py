"""The one contract between data and model."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virnucpro_pl.data.packed import PackedTokens

Modality = Literal["both", "dna", "protein"]
"""Which embeddings a head takes: both concatenated, DNA first, or those of one encoder."""


class CachedEmbeddings(NamedTuple):
    """What the embedding cache has of the sequences of a batch, and how to name to it what it has not."""

    dna: Tensor | None
    """(C, D) int32, the bits of float32 embeddings (Lightning would round floats to the precision); None if C is 0"""
    protein: Tensor | None
    """likewise of proteins"""
    dna_keys: NDArray[np.uint64]
    """(M, 2) keys of the M sequences in ``OrfBatch.dna``; on the host, where they are needed"""
    protein_keys: NDArray[np.uint64]
    """likewise of ``OrfBatch.protein``"""


class OrfBatch(NamedTuple):
    """N ORFs, tokenised for both encoders; sequences that ORFs share are there once."""

    number: int
    """Number of the batch in the plan"""
    orfs: Tensor
    """(N,) int64, rows of the ORF store"""
    dna: PackedTokens
    """Nucleotides to embed, longest first"""
    dna_indices: Tensor
    """(N,) int64, which of the embeddings each ORF's nucleotides have: those of ``dna`` come first, then cached ones"""
    protein: PackedTokens
    """Proteins to embed, longest first"""
    protein_indices: Tensor
    """(N,) int64, likewise of the proteins"""
    cached: CachedEmbeddings | None = None
    """None where no cache is used"""
    whole: Tensor | None = None
    """(N,) bool, which are whole chunks without protein; None where none is"""

    def __reduce__(self) -> tuple[Callable[..., "OrfBatch"], tuple[Any, ...]]:
        """Travel from worker processes through their pipe, as plain arrays.

        A tensor would travel through shared memory and a socket in the temporary folder. Where the one is small or the
        path of the other long, as in containers, sending fails in a thread of the worker and the run waits forever.
        """
        return _with_tensors, tuple(_as_array(field) for field in self)


class _Array(NamedTuple):
    """What was a tensor, and is to be one again."""

    values: NDArray[Any]


def _as_array(value: Any) -> Any:
    """Put arrays that share their memory in the place of tensors, in nested tuples too."""
    if isinstance(value, Tensor):
        return _Array(value.numpy())
    if isinstance(value, PackedTokens | CachedEmbeddings):
        return type(value)(*map(_as_array, value))
    return value


def _as_tensor(value: Any) -> Any:
    if isinstance(value, _Array):
        return torch.from_numpy(value.values)
    if isinstance(value, PackedTokens | CachedEmbeddings):
        return type(value)(*map(_as_tensor, value))
    return value


def _with_tensors(*fields: Any) -> OrfBatch:
    return OrfBatch(*map(_as_tensor, fields))
