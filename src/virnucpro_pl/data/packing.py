"""The batch plan: ORFs that are embedded together."""

from array import array
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.sequence.length_order import LengthOrder
from virnucpro_pl.sequence.stored_array import StoredArray

_BASES_PER_TOKEN = 12  # four times what ORFs with proteins of their own bring; bounds the DNA encoder's memory


class Plan(NamedTuple):
    """Batch plan: the rows of each batch; the same for any number of devices."""

    rows: StoredArray
    """(U,) int64 rows of the ORFs to embed, batch after batch"""
    offsets: NDArray[np.int64]
    """(B + 1,) batch i is ``rows[offsets[i]:offsets[i + 1]]``"""
    protein_tokens: int
    """tokens of all batches for the protein encoder"""
    num_proteins: int
    """proteins of all batches; one that ORFs of a batch share counts once"""
    key: str = ""
    """text that differs between plans of different stores or settings, and between runs with different scores"""

    @property
    def num_batches(self) -> int:
        """Return B."""
        return len(self.offsets) - 1

    def batch(self, number: int) -> NDArray[np.int64]:
        """Return the rows of one batch, (N,) int64."""
        return self.rows[self.offsets[number] : self.offsets[number + 1]]


def plan_batches(order: LengthOrder, token_budget: int, key: str = "") -> Plan:
    """Cut ORFs, longest first, into batches of at most ``token_budget`` protein tokens.

    A packed batch has no padding, so consecutive slices waste nothing and equal lengths end up side by side. A
    protein counts two tokens more than its residues, and once for all its ORFs in a batch, which are neighbours; one
    longer than the budget gets a batch to itself. A batch has at most ``12 * token_budget`` bases, which only ORFs
    that share proteins reach. Memory grows with the number of batches only.

    Args:
        order: the ORFs and their lengths, longest first.
        token_budget: most protein tokens in a batch.
        key: key of the plan.
    """
    offsets = array("q", [0])
    protein_tokens = num_proteins = 0
    waiting = order.lengths[:0]
    for block in order.lengths.blocks():
        # The last batch of a block may continue in the next.
        waiting = np.concatenate([waiting, block])
        is_last = offsets[-1] + len(waiting) == len(order.lengths)
        ends, tokens, proteins = _cut(waiting, token_budget, is_last)
        protein_tokens, num_proteins = protein_tokens + tokens, num_proteins + proteins
        waiting = waiting[ends[-1] if ends else 0 :]
        offsets.extend([offsets[-1] + end for end in ends])
    return Plan(order.rows, np.array(offsets, dtype=np.int64), protein_tokens, num_proteins, key)


def _cut(lengths: NDArray[np.void], token_budget: int, is_last: bool) -> tuple[list[int], int, int]:
    """Return the ends of the batches, the number of their protein tokens and of their proteins.

    The first batch begins at 0. The last ORFs, whose batch may continue in the next block, are left out unless
    ``is_last`` is set.
    """
    tokens, bases = lengths["residues"].astype(np.int64) + 2, lengths["bases"].astype(np.int64)
    is_embedded = ~lengths["shares_protein"]
    total_tokens, total_bases = np.cumsum(np.where(is_embedded, tokens, 0)), np.cumsum(bases)
    starts = [0]
    while (start := starts[-1]) < len(lengths):
        # The first protein of a batch counts in full, also where the batch before had it.
        most_tokens = max(total_tokens[start] - tokens[start] + token_budget, total_tokens[start])
        most_bases = total_bases[start] - bases[start] + token_budget * _BASES_PER_TOKEN
        fits = min(
            int(np.searchsorted(total_tokens, most_tokens, side="right")),
            int(np.searchsorted(total_bases, most_bases, side="right")),
        )
        end = max(fits, start + 1)
        if end == len(lengths) and not is_last:
            break
        starts.append(end)
    is_embedded[starts[:-1]] = True
    embedded = is_embedded[: starts[-1]]
    return starts[1:], int(tokens[: starts[-1]][embedded].sum()), int(np.count_nonzero(embedded))
