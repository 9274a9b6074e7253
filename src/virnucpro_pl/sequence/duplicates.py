"""Finding equal rows among more of them than fit in memory."""

from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_NUM_FILES = 32
_SPILL_ROWS = 1 << 16


class DuplicateFinder:
    """Tells which rows of a stream repeat an earlier row.

    A row has one part or two, and rows are equal when the 64-bit hashes of all parts are; Python keys its hashes anew
    in every process, so no input can be made to collide. The hashes are spilled to files, each hash value to one file,
    so that a file at a time is sorted in memory.
    """

    def __init__(self, folder: Path, name: str):
        self._files = [folder / f"{name}-{number:02d}.hashes" for number in range(_NUM_FILES)]
        self._pending: list[NDArray[np.int64]] = []
        self._num_pending = 0
        self._num_rows = 0

    def add(self, *parts: Sequence[Hashable]) -> None:
        """Append the next rows, given as their first and, where there is one, their second parts."""
        count = len(parts[0])
        rows = np.zeros((count, 3), dtype=np.int64)
        for column, values in enumerate(parts):
            rows[:, column] = np.fromiter(map(hash, values), dtype=np.int64, count=count)
        rows[:, 2] = np.arange(self._num_rows, self._num_rows + count)
        self._num_rows += count
        self._pending.append(rows)
        self._num_pending += count
        if self._num_pending >= _SPILL_ROWS:
            self._spill()

    def _spill(self) -> None:
        rows = np.concatenate(self._pending)
        file_number = rows[:, 0].astype(np.uint8) & np.uint8(_NUM_FILES - 1)
        rows = rows[np.argsort(file_number, kind="stable")]
        borders = np.cumsum(np.bincount(file_number, minlength=_NUM_FILES))
        for file, start, end in zip(self._files, [0, *borders], borders, strict=False):
            if start < end:
                with file.open("ab") as stream:
                    stream.write(rows[start:end].data)
        self._pending, self._num_pending = [], 0

    def find(self) -> NDArray[np.int64]:
        """Return (M, 2): the M rows that came before, ascending, each with the row where it came first."""
        if self._num_pending:
            self._spill()
        found = [np.empty((0, 2), dtype=np.int64)]
        for file in self._files:
            if file.exists():
                found.append(_repeats(np.fromfile(file, dtype=np.int64).reshape(-1, 3)))
                file.unlink()
        repeats = np.concatenate(found)
        return repeats[np.argsort(repeats[:, 0])]


def _repeats(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (M, 2): row and first row of each repeat among (N, 3) two hashes and row, rows ascending."""
    by_hash = np.argsort(rows[:, 0])
    is_shared = np.diff(rows[by_hash, 0]) == 0
    rows = rows[np.sort(by_hash[np.append(is_shared, False) | np.insert(is_shared, 0, False)])]
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    is_repeat = np.append(False, (np.diff(rows[:, :2], axis=0) == 0).all(axis=1))[: len(rows)]
    first = np.maximum.accumulate(np.where(is_repeat, 0, np.arange(len(rows))))
    return np.stack([rows[is_repeat, 2], rows[first[is_repeat], 2]], axis=1)
