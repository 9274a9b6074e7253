"""Search for equal rows in constant memory."""

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.sequence.row_sorter import RowSorter
from virnucpro_pl.sequence.stored_array import StoredArray

Pairs = NDArray[np.int64]
_NO_HASH = 0


class DuplicateFinder:
    """Finder of the rows of a stream that repeat an earlier row.

    A row has one or two parts, which are compared by their 64-bit hashes; Python seeds its hashes anew in each process,
    so no input can provoke collisions. The hashes are sorted on disk. Memory grows only with the number of distinct
    rows that share one first part.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._hashes = RowSorter(folder, columns=3)

    def add(self, *parts: Sequence[Hashable]) -> None:
        """Append rows, given as their first and, if any, their second parts."""
        count, before = len(parts[0]), len(self._hashes)
        rows = np.full((count, 3), _NO_HASH, dtype=np.int64)
        for column, values in enumerate(parts):
            rows[:, column] = np.fromiter(map(hash, values), dtype=np.int64, count=count)
        rows[:, 2] = np.arange(before, before + count)
        self._hashes.add(rows)

    def save(self, *paths: Path) -> int:
        """Write the repeated rows, each with the first row that it repeats, as (M, 2) int64 arrays.

        Args:
            paths: file of the rows that repeat an earlier row and, for rows of two parts, file of the rows that repeat
                the first part of an earlier row. Both arrays ascend.

        Returns:
            The number of rows that repeat an earlier row.
        """
        sorters = [RowSorter(self._folder, columns=2) for _ in paths]
        for found in self._found():
            for sorter, pairs in zip(sorters, found, strict=False):
                sorter.add(pairs)
        for sorter, path in zip(sorters, paths, strict=True):
            sorter.save(path)
        return len(sorters[0])

    def _found(self) -> Iterator[tuple[Pairs, Pairs]]:
        """Yield (row, first row) of whole rows and of first parts, block by block."""
        carried = np.empty((0, 3), dtype=np.int64)  # distinct rows with the last first part of a block
        for block in self._hashes.blocks():
            rows = np.concatenate([carried, block])
            is_new = np.arange(len(rows)) >= len(carried)
            is_shared = rows[1:, 0] == rows[:-1, 0]
            shared = np.flatnonzero(np.append(is_shared, False) | np.insert(is_shared, 0, False))
            some, is_new = rows[shared], is_new[shared]
            first_part = _repeats(some, np.arange(len(some)), columns=1)
            whole = _repeats(some, np.lexsort((some[:, 1], some[:, 0])), columns=2)
            is_distinct = np.ones(len(rows), dtype=np.bool_)
            is_distinct[shared[whole[:, 0]]] = False
            carried = rows[is_distinct & (rows[:, 0] == rows[-1, 0])]
            yield some[whole, 2], some[first_part[is_new[first_part[:, 0]]], 2]


def number_repeats(repeats: StoredArray, folder: Path, path: Path) -> None:
    """Write the repeated rows, ascending, each with the number of its occurrence, from 2, as (M, 2) int64.

    Args:
        repeats: array of :meth:`DuplicateFinder.save`.
        folder: folder of temporary files.
        path: file of the array.
    """
    by_first, numbered = (RowSorter(folder, columns=2) for _ in range(2))
    for block in repeats.blocks():
        by_first.add(block[:, ::-1])
    last, before = -1, 0  # last repeated row of a block, and its number of repeats
    for first, row in (block.T for block in by_first.blocks()):
        numbers = np.arange(len(first)) - np.searchsorted(first, first) + 2
        numbers[first == last] += before
        last, before = int(first[-1]), int(numbers[-1]) - 1
        numbered.add(np.stack([row, numbers], axis=1))
    numbered.save(path)


def _repeats(rows: NDArray[np.int64], order: NDArray[np.int64], columns: int) -> Pairs:
    """Return the indices of rows that repeat an earlier one, and of that one, (M, 2); ``order`` sorts the rows."""
    ordered = rows[order, :columns]
    is_repeat = np.append(False, (ordered[1:] == ordered[:-1]).all(axis=1))[: len(rows)]
    first = np.maximum.accumulate(np.where(is_repeat, 0, np.arange(len(rows))))
    return np.stack([order[is_repeat], order[first[is_repeat]]], axis=1)
