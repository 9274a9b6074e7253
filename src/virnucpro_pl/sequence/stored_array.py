"""Arrays on disk that are read block by block."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 1 << 17


class StoredArray:
    """Array in a ``.npy`` file; its rows are read when they are indexed.

    Unlike the pages of a memory map, nothing stays in memory. Instances are pickled as their path.
    """

    def __init__(self, path: Path):
        self.path = path
        with path.open("rb") as stream:
            np.lib.format.read_magic(stream)  # create_array writes version 1
            self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(stream)
            self._begin = stream.tell()

    def __reduce__(self) -> tuple[type["StoredArray"], tuple[Path]]:
        return StoredArray, (self.path,)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Read consecutive rows."""
        start, end, _ = rows.indices(len(self))
        width = int(np.prod(self.shape[1:], dtype=np.int64))
        offset = self._begin + start * width * self.dtype.itemsize
        values = np.fromfile(self.path, self.dtype, count=max(end - start, 0) * width, offset=offset)
        return values.reshape(-1, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read all rows, BLOCK_ROWS at a time."""
        return (self[start : start + BLOCK_ROWS] for start in range(0, len(self), BLOCK_ROWS))


def create_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> int:
    """Write the header of a ``.npy`` file; return the offset of the values."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        return stream.tell()


def save_blocks(path: Path, dtype: Any, shape: tuple[int, ...], blocks: Iterable[NDArray[Any]]) -> None:
    """Write an array from blocks of rows."""
    create_array(path, dtype, shape)
    with path.open("ab") as stream:
        for block in blocks:
            stream.write(np.ascontiguousarray(block, dtype=dtype).data)
