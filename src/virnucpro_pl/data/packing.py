"""Planning: which ORFs are embedded together. Pure functions on lengths."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BASES_PER_TOKEN = 12  # four times what ORFs with proteins of their own bring; bounds the DNA encoder's memory


class Plan(NamedTuple):
    """Batches of ORF rows; the same for any number of devices."""

    rows: NDArray[np.int64]
    """(U,) rows of the ORFs to embed, batch after batch"""
    offsets: NDArray[np.int64]
    """(B + 1,) batch i is ``rows[offsets[i]:offsets[i + 1]]``"""
    protein_tokens: int
    """tokens of all batches for the protein encoder"""
    num_proteins: int
    """proteins of all batches; one that ORFs of a batch share counts once"""

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
    proteins: NDArray[np.int64] | None = None,
) -> Plan:
    """Sort ORFs by length, longest first, and cut them into batches of at most ``token_budget`` protein tokens.

    A packed batch has no padding, so consecutive slices waste nothing and equal lengths end up side by side. A
    protein counts two tokens more than its residues, and once for all its ORFs in a batch, which are neighbours; one
    longer than the budget gets a batch to itself. A batch has at most ``12 * token_budget`` bases, which only ORFs
    that share proteins reach.

    Args:
        rows: (U,) ORFs to embed.
        protein_lengths: (U,) their residues.
        nucleotide_lengths: (U,) their bases.
        token_budget: most protein tokens in a batch.
        proteins: (U,) for each of them the first of ``rows`` with the same protein; None where all differ.
    """
    proteins = rows if proteins is None else proteins
    by_row = np.argsort(rows)
    first = by_row[np.searchsorted(rows, proteins, sorter=by_row)]
    order = np.lexsort((rows, proteins, -nucleotide_lengths[first], -protein_lengths))
    tokens, bases, proteins = protein_lengths[order] + 2, nucleotide_lengths[order], proteins[order]
    is_repeat = np.append(False, proteins[1:] == proteins[:-1])[: len(rows)]
    total_tokens, total_bases = np.cumsum(np.where(is_repeat, 0, tokens)), np.cumsum(bases)
    offsets = [0]
    while (start := offsets[-1]) < len(rows):
        # The first protein of a batch counts in full, also where the batch before had it.
        most_tokens = max(total_tokens[start] - tokens[start] + token_budget, total_tokens[start])
        most_bases = total_bases[start] - bases[start] + token_budget * _BASES_PER_TOKEN
        fits = min(
            np.searchsorted(total_tokens, most_tokens, side="right"),
            np.searchsorted(total_bases, most_bases, side="right"),
        )
        offsets.append(max(int(fits), start + 1))
    starts = np.array(offsets[:-1], dtype=np.int64)
    is_embedded = ~is_repeat
    is_embedded[starts] = True
    return Plan(
        rows=rows[order],
        offsets=np.array(offsets, dtype=np.int64),
        protein_tokens=int(tokens[is_embedded].sum()),
        num_proteins=int(np.count_nonzero(is_embedded)),
    )
