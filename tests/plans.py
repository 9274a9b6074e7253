"""Plans made of lengths alone, and the same made in memory."""

import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np

from virnucpro_pl.data.packing import Plan, plan_batches
from virnucpro_pl.sequence.length_order import sort_by_length
from virnucpro_pl.sequence.stored_array import StoredArray, save_blocks

NO_PAIRS = np.empty((0, 2), dtype=np.int64)


class Lengths:
    """Stands for a column of the store."""

    def __init__(self, lengths: np.ndarray):
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._lengths)

    def lengths(self, start: int, end: int) -> np.ndarray:
        return self._lengths[start:end]


def plan_of_lengths(residues, bases, token_budget, shared=NO_PAIRS, copies=NO_PAIRS, deduplicate=True) -> Plan:
    """Plan ORFs of these lengths; ``copies`` repeat an ORF, ``shared`` (those too) a protein: row and first row."""
    folder = Path(tempfile.mkdtemp())
    repeats = []
    for name, pairs in (("copies", copies), ("shared", shared)):
        save_blocks(folder / name, np.int64, pairs.shape, [pairs])
        repeats.append(StoredArray(folder / name))
    order = sort_by_length(
        Lengths(residues), Lengths(bases), tuple(repeats) if deduplicate else None, folder / "by_length"
    )
    plan = plan_batches(order, token_budget)
    weakref.finalize(plan.rows, shutil.rmtree, folder)
    return plan


def plan_in_memory(residues, bases, token_budget, shared=NO_PAIRS, copies=NO_PAIRS, deduplicate=True):
    """Return rows, offsets, protein tokens and number of proteins of the plan, by sorting everything at once."""
    proteins = np.arange(len(residues))
    if deduplicate:
        proteins[shared[:, 0]] = shared[:, 1]
    rows = np.delete(np.arange(len(residues)), copies[:, 0]) if deduplicate else proteins
    order = rows[np.lexsort((rows, proteins[rows], -bases[proteins[rows]], -residues[rows]))]
    offsets, tokens, num_proteins = [0], 0, 0
    batch_tokens = batch_bases = 0
    for place, row in enumerate(order.tolist()):
        starts = place == offsets[-1]
        shares = not starts and proteins[row] == proteins[order[place - 1]]
        more = 0 if shares else int(residues[row]) + 2
        has_room = not more or batch_tokens + more <= token_budget
        if not starts and not (has_room and batch_bases + bases[row] <= 12 * token_budget):
            offsets.append(place)
            more, batch_tokens, batch_bases = int(residues[row]) + 2, 0, 0
        batch_tokens, batch_bases = batch_tokens + more, batch_bases + int(bases[row])
        tokens, num_proteins = tokens + more, num_proteins + (more > 0)
    return order.tolist(), [*offsets, *([len(order)] if len(order) else [])], tokens, num_proteins
