"""Scores of all ORFs in a memory-mapped file."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 1 << 10
"""Rows between two releases of pages; each row may touch 64 KiB, as the kernel maps neighbouring pages, too"""
_BLOCK = b"\xff" * (1 << 20)  # as float32, NaN
_ITEM_BYTES = 8


class ScoreFile:
    """(orfs, 2) float32 array in a file, NaN at first, indexed by row; its pages do not stay in memory.

    The whole file is written at once: a full disk would end the process while it writes to the map of a sparse file.

    Raises:
        OSError: the disk is full.
    """

    def __init__(self, path: Path, num_orfs: int):
        with path.open("w+b") as stream:
            left = max(num_orfs, 1) * _ITEM_BYTES  # an empty file cannot be mapped
            while left:
                left -= stream.write(_BLOCK[:left])
            stream.flush()
            self._pages = mmap.mmap(stream.fileno(), 0)
        self._scores: NDArray[np.float32] = np.frombuffer(self._pages, dtype=np.float32).reshape(-1, 2)[:num_orfs]

    def __len__(self) -> int:
        return len(self._scores)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of some rows, (N, 2)."""
        if isinstance(rows, slice):
            found = self._scores[rows].copy()
            self._release()
            return found
        found = np.empty((len(rows), 2), dtype=np.float32)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            found[start : start + _ROWS_AT_ONCE] = self._scores[rows[start : start + _ROWS_AT_ONCE]]
            self._release()
        return found

    def __setitem__(self, rows: NDArray[np.int64], scores: NDArray[Any]) -> None:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            self._scores[rows[start : start + _ROWS_AT_ONCE]] = scores[start : start + _ROWS_AT_ONCE]
            self._release()

    def _release(self) -> None:
        self._pages.madvise(mmap.MADV_DONTNEED)  # changes are kept, as the map is shared with the file
