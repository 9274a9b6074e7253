"""Planning: which ORFs are embedded together. Pure functions on lengths."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Plan(NamedTuple):
    """Batches of ORF rows; the same for any number of devices."""

    rows: NDArray[np.int64]
    """(U,) rows of the ORFs to embed, batch after batch"""
    offsets: NDArray[np.int64]
    """(B + 1,) batch i is ``rows[offsets[i]:offsets[i + 1]]``"""
    protein_tokens: int
    """tokens of all batches for the protein encoder"""

    @property
    def num_batches(self) -> int:
        """B."""
        return len(self.offsets) - 1

    def batch(self, number: int) -> NDArray[np.int64]:
        """Rows of one batch."""
        return self.rows[self.offsets[number] : self.offsets[number + 1]]


def plan_batches(
    rows: NDArray[np.int64],
    protein_lengths: NDArray[np.int64],
    nucleotide_lengths: NDArray[np.int64],
    token_budget: int,
) -> Plan:
    """Sort ORFs by length, longest first, and cut them into batches of at most ``token_budget`` protein tokens.

    A packed batch has no padding, so consecutive slices waste nothing and equal lengths end up side by side. A
    protein counts two tokens more than its residues; one longer than the budget gets a batch to itself.

    Args:
        rows: (U,) ORFs to embed.
        protein_lengths: (U,) their residues.
        nucleotide_lengths: (U,) their bases.
        token_budget: most protein tokens in a batch.
    """
    order = np.lexsort((rows, -nucleotide_lengths, -protein_lengths))
    total = np.cumsum(protein_lengths[order] + 2)
    offsets = [0]
    while offsets[-1] < len(rows):
        done = total[offsets[-1] - 1] if offsets[-1] else 0
        fits = int(np.searchsorted(total, done + token_budget, side="right"))
        offsets.append(max(fits, offsets[-1] + 1))
    return Plan(rows[order], np.array(offsets, dtype=np.int64), int(total[-1]) if len(total) else 0)
