"""Batches: the contract between data module and model."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virnucpro_pl.data.packed import PackedTokens

Modality = Literal["both", "dna", "protein"]
"""Embeddings that a head takes: of both encoders, concatenated, DNA first, or of one."""


class CachedEmbeddings(NamedTuple):
    """Embeddings of a batch that the cache holds, and the keys of those that it lacks."""

    dna: Tensor | None
    """(C, D) int32, the bits of float32 embeddings (Lightning would round floats to the precision); None if C is 0"""
    protein: Tensor | None
    """the same for proteins"""
    dna_keys: NDArray[np.uint64]
    """(M, 2) keys of the M sequences in ``OrfBatch.dna``, on the host"""
    protein_keys: NDArray[np.uint64]
    """(M, 2) keys of the M sequences in ``OrfBatch.protein``, on the host"""


class OrfBatch(NamedTuple):
    """N ORFs, tokenized for both encoders; a sequence that ORFs share is there once."""

    number: int
    """Number of the batch in the plan"""
    orfs: Tensor
    """(N,) int64, rows of the ORF store"""
    dna: PackedTokens
    """Nucleotides to embed, longest first"""
    dna_indices: Tensor
    """(N,) int64, index of the embedding of each ORF's nucleotides: those of ``dna`` come first, then cached ones"""
    protein: PackedTokens
    """Proteins to embed, longest first"""
    protein_indices: Tensor
    """(N,) int64, index of the embedding of each ORF's protein"""
    cached: CachedEmbeddings | None = None
    """None without an embedding cache"""
    whole: Tensor | None = None
    """(N,) bool, true for whole chunks, which have no protein; None if the store holds none"""

    def __reduce__(self) -> tuple[Callable[..., "OrfBatch"], tuple[Any, ...]]:
        """Pickle tensors as arrays, which worker processes send through their pipe.

        A tensor is sent through shared memory and a socket in the temporary folder. If the former is small or the path
        of the latter long, as in containers, sending fails in a thread of the worker and the run waits forever.
        """
        return _with_tensors, tuple(_as_array(field) for field in self)


class _Array(NamedTuple):
    """Values of a pickled tensor."""

    values: NDArray[Any]


def _as_array(value: Any) -> Any:
    """Replace tensors by arrays that share their memory, in nested tuples, too."""
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
