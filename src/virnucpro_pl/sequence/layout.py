"""The files of an ORF store: which columns they have, how they are written and read."""

import hashlib
import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from virnucpro_pl.sequence.chunks import Geometry, check_chunking
from virnucpro_pl.sequence.translation import Ambiguity, check_ambiguity

FORMAT_VERSION = 3
STATUSES = ("called", "no_orf", "ambiguous_only", "too_short", "empty")
"""What became of a record or chunk, best first; a record has the best status of its chunks.

``called``: at least one ORF was scored; ``no_orf``: every frame holds a stop codon; ``ambiguous_only``: no codon
could be translated; ``too_short``: under three bases; ``empty``: no bases at all (such a record has no chunk).
"""

RECORDS = pa.schema(
    [
        ("name", pa.large_string()),
        ("description", pa.large_string()),
        ("sequence", pa.large_binary()),
        ("chunks", pa.int64()),
        ("status", pa.uint8()),
    ]
)
CHUNKS = pa.schema(
    [
        ("record", pa.int64()),
        ("number", pa.int64()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("orfs", pa.uint8()),
        ("status", pa.uint8()),
    ]
)
ORFS = pa.schema(
    [
        ("record", pa.int64()),
        ("chunk", pa.int64()),
        ("frame", pa.uint8()),
        ("nucleotides", pa.large_binary()),
        ("protein", pa.large_binary()),
    ]
)


class StoreSettings(NamedTuple):
    """What shapes a store besides its input."""

    chunk_length: int
    chunking: Geometry = "published"
    ambiguity: Ambiguity = "published"

    def check(self) -> None:
        """Raise UserError for a value no store can be built with."""
        check_chunking(self.chunk_length, self.chunking)
        check_ambiguity(self.ambiguity)

    def key(self, digests: list[str]) -> str:
        """Name of the store of inputs with these SHA-256 digests."""
        identity = json.dumps([FORMAT_VERSION, self._asdict(), digests])
        return hashlib.sha256(identity.encode()).hexdigest()[:16]


class TableWriter:
    """An Arrow IPC file written batch by batch, in a thread of its own."""

    def __init__(self, path: Path, schema: pa.Schema):
        self._schema = schema
        self._writer = pa.ipc.new_file(str(path), schema)
        self._thread = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None
        self.num_rows = 0

    def append(self, *columns: pa.Array | NDArray[np.generic]) -> None:
        """Append rows; numbers may come as NumPy arrays."""
        arrays = [
            column if isinstance(column, pa.Array) else _number_column(column, field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        batch = pa.record_batch(arrays, schema=self._schema)
        if batch.num_rows:
            self._wait()
            self._written = self._thread.submit(self._writer.write_batch, batch)
        self.num_rows += batch.num_rows

    def close(self) -> None:
        """Complete the file."""
        self._wait()
        self._thread.shutdown()
        self._writer.close()

    def _wait(self) -> None:
        if self._written:
            self._written.result()


# Columns are made of buffers because pyarrow.array copies, visits each value, and imports pandas.


def _number_column(values: NDArray[np.generic], kind: pa.DataType) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(values, dtype=kind.to_pandas_dtype()))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])


def binary_column(joined: bytes, lengths: NDArray[np.int64]) -> pa.Array:
    """Column of byte strings that lie end to end."""
    return _ragged_column(pa.large_binary(), joined, lengths)


def text_column(values: list[str]) -> pa.Array:
    """Column of texts without line ends."""
    joined = "\n".join([*values, ""]).encode()
    ends = np.flatnonzero(np.frombuffer(joined, dtype=np.uint8) == ord("\n"))
    return _ragged_column(pa.large_string(), joined.replace(b"\n", b""), np.diff(ends, prepend=-1) - 1)


def _ragged_column(kind: pa.DataType, joined: bytes, lengths: NDArray[np.int64]) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return pa.Array.from_buffers(kind, len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(joined)])


class RaggedColumn:
    """Random access to a variable-length column of a memory-mapped Arrow file, without touching other rows."""

    def __init__(self, path: Path, name: str):
        chunks = read_table(path).column(name).chunks
        arrays = [(array.buffers(), array.offset, len(array)) for array in chunks]
        self._first_rows = np.cumsum([0, *(length for _, _, length in arrays)])
        self._offsets = [np.frombuffer(buffers[1], np.int64)[skip : skip + n + 1] for buffers, skip, n in arrays]
        self._values = [memoryview(buffers[2] or b"") for buffers, _, _ in arrays]

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each value."""
        return np.concatenate([np.empty(0, np.int64), *map(np.diff, self._offsets)])

    def take(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Return the values of ``rows``, in their order; text as UTF-8."""
        batches = np.searchsorted(self._first_rows, rows, side="right") - 1
        values = []
        for batch, row in zip(batches.tolist(), (rows - self._first_rows[batches]).tolist(), strict=True):
            start, end = self._offsets[batch][row : row + 2].tolist()
            values.append(self._values[batch][start:end].tobytes())
        return values


def read_table(path: Path) -> pa.Table:
    """Memory-map one of the store's Arrow files."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
