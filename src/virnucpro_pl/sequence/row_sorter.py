"""External sorting of rows of integers."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.sequence.stored_array import save_blocks

Rows = NDArray[np.int64]
MAX_ROWS = 1 << 16
LEAST_READ = 128
"""Fewest rows of a run that are read at once"""


class RowSorter:
    """Stable sorter of (N, ``columns``) int64 rows by their first column.

    Sorted runs of ``max_rows`` rows go to one temporary file in ``folder``, which has no name and vanishes with
    the process. The runs are merged block by block.
    """

    def __init__(self, folder: Path, columns: int, max_rows: int = MAX_ROWS):
        self._folder = folder
        self._columns = columns
        self._max_rows = max_rows
        self._pending: list[Rows] = []
        self._num_pending = 0
        self._file: BinaryIO | None = None
        self._ends: list[int] = []
        self._num_rows = 0

    def __len__(self) -> int:
        return self._num_rows

    def add(self, rows: Rows) -> None:
        """Append rows."""
        self._pending.append(rows)
        self._num_pending += len(rows)
        self._num_rows += len(rows)
        if self._num_pending >= self._max_rows:
            self._spill()

    def save(self, path: Path) -> int:
        """Write all rows, sorted, as an array; return their number."""
        save_blocks(path, np.int64, (self._num_rows, self._columns), self.blocks())
        return self._num_rows

    def blocks(self) -> Iterator[Rows]:
        """Yield all rows, sorted, in blocks; can be called once."""
        if self._file is None:
            if self._num_pending:
                yield self._take_pending()
            return
        if self._num_pending:
            self._spill()
        with self._file:
            yield from self._merged(self._file)

    def _take_pending(self) -> Rows:
        rows = np.concatenate(self._pending)
        self._pending, self._num_pending = [], 0
        return _sorted(rows)

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - read again in blocks
        self._file.write(self._take_pending().data)
        self._ends.append(self._file.tell() // (8 * self._columns))

    def _merged(self, file: BinaryIO) -> Iterator[Rows]:
        ends = np.array(self._ends)
        positions = np.array([0, *self._ends[:-1]])
        size = max(self._max_rows // len(ends), LEAST_READ)
        buffers = [np.empty((0, self._columns), dtype=np.int64)] * len(ends)
        first, last = np.empty(len(ends), dtype=np.int64), np.empty(len(ends), dtype=np.int64)
        waning = np.arange(len(ends))  # runs with a buffer to refill
        while True:
            for run in waning.tolist():
                more = self._read(file, positions[run], min(size, int(ends[run] - positions[run])))
                positions[run] += len(more)
                buffers[run] = np.concatenate([buffers[run], more])
                first[run], last[run] = buffers[run][[0, -1], 0]
            unfinished = np.flatnonzero(positions < ends)
            if not len(unfinished):
                yield _sorted(np.concatenate(buffers))
                return
            # Rows up to the smallest end of a buffer have no predecessor on disk.
            border = int(unfinished[np.argmin(last[unfinished])])
            taken = []
            for run in np.flatnonzero(first <= last[border]).tolist():
                # Rows equal to that end keep their order.
                side: Literal["left", "right"] = "right" if run <= border else "left"
                count = int(np.searchsorted(buffers[run][:, 0], last[border], side=side))
                taken.append(buffers[run][:count])
                buffers[run] = buffers[run][count:]
                first[run] = buffers[run][0, 0] if len(buffers[run]) else np.iinfo(np.int64).max
            yield _sorted(np.concatenate(taken))
            left = np.array([len(buffers[run]) for run in unfinished])
            waning = unfinished[left <= size // 2]

    def _read(self, file: BinaryIO, row: int, count: int) -> Rows:
        file.seek(int(row) * 8 * self._columns)
        return np.frombuffer(file.read(count * 8 * self._columns), dtype=np.int64).reshape(-1, self._columns)


def _sorted(rows: Rows) -> Rows:
    return np.take(rows, np.argsort(rows[:, 0], kind="stable"), axis=0)
