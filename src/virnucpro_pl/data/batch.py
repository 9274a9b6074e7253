"""The one contract between data and model."""

from typing import NamedTuple

from torch import Tensor

from virnucpro_pl.encoders.packed import PackedTokens


class OrfBatch(NamedTuple):
    """N ORFs, tokenised for both encoders."""

    number: int
    """Number of the batch in the plan"""
    orfs: Tensor
    """(N,) int64, rows of the ORF store"""
    dna: PackedTokens
    """Nucleotides, ordered by their number of tokens"""
    dna_places: Tensor
    """(N,) int64, where in ``dna`` each ORF's nucleotides are"""
    protein: PackedTokens
    """Proteins, in the order of ``orfs``"""
