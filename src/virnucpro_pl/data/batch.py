"""The one contract between data and model."""

from typing import NamedTuple

from torch import Tensor

from virnucpro_pl.encoders.packed import PackedTokens


class OrfBatch(NamedTuple):
    """N ORFs, tokenised for both encoders; sequences that ORFs share are there once."""

    number: int
    """Number of the batch in the plan"""
    orfs: Tensor
    """(N,) int64, rows of the ORF store"""
    dna: PackedTokens
    """Nucleotides, longest first"""
    dna_places: Tensor
    """(N,) int64, where in ``dna`` each ORF's nucleotides are"""
    protein: PackedTokens
    """Proteins, longest first"""
    protein_places: Tensor
    """(N,) int64, where in ``protein`` each ORF's protein is"""
