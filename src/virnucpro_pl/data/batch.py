"""The one contract between data and model."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from virnucpro_pl.encoders.packed import PackedTokens


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
    dna_places: Tensor
    """(N,) int64, which of the embeddings each ORF's nucleotides have: those of ``dna`` come first, then cached ones"""
    protein: PackedTokens
    """Proteins to embed, longest first"""
    protein_places: Tensor
    """(N,) int64, likewise of the proteins"""
    cached: CachedEmbeddings | None = None
    """None where no cache is used"""
