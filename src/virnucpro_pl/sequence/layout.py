"""Files of an ORF store: columns, writers and readers."""

import hashlib
import io
import json
import mmap
import os
import struct
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from virnucpro_pl.files.file_names import open_arrow
from virnucpro_pl.sequence.alphabet import Alphabet, check_alphabet
from virnucpro_pl.sequence.chunks import Geometry, check_chunking
from virnucpro_pl.sequence.translation import Ambiguity, check_ambiguity

FORMAT_VERSION = 6
_TWO_OFFSETS = struct.Struct("=qq")
_BATCHES_MAPPED = 64
DNA_ONLY = "dna_only"
NOT_NUCLEOTIDES = "not_nucleotides"
STATUSES = ("called", DNA_ONLY, "no_orf", "ambiguous_only", NOT_NUCLEOTIDES, "too_short", "empty")
"""Statuses of records and chunks, best first; a record has the best status of its chunks.

``called``: at least one ORF is scored; ``dna_only``: all frames hold a stop codon, and a fallback head scored the
nucleotides; ``no_orf``: all frames hold a stop codon; ``ambiguous_only``: no codon can be translated;
``not_nucleotides``: more than 0.1 % of the letters of the record are no nucleotides, so it is not called, although its
ORFs are scored; ``too_short``: fewer than three bases; ``empty``: no bases (such a record has no chunk).
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
    """Settings that shape a store."""

    chunk_length: int
    chunking: Geometry = "published"
    ambiguity: Ambiguity = "published"
    alphabet: Alphabet = "iupac"
    """``any``: letters that are no nucleotides are ignored"""
    whole_chunks: bool = False
    """store chunks without ORF, for a head that scores nucleotides alone"""

    def check(self) -> None:
        """Raise UserError if a setting is out of range."""
        check_chunking(self.chunk_length, self.chunking)
        check_ambiguity(self.ambiguity)
        check_alphabet(self.alphabet)

    def key(self, digests: list[str]) -> str:
        """Return the name of the store of inputs with these SHA-256 digests."""
        fingerprint = json.dumps([FORMAT_VERSION, self._asdict(), digests])
        return hashlib.sha256(fingerprint.encode()).hexdigest()[:16]


class _HashedFile(io.RawIOBase):
    """New file that is hashed while it is written."""

    def __init__(self, path: Path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self._close = weakref.finalize(self, os.close, self._file)
        self._size = 0
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self.digest.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        self._size += len(data)
        return len(data)

    def close(self) -> None:
        super().close()
        self._close()


class TableWriter:
    """Writer of an Arrow IPC file, which writes and hashes batches in a thread."""

    def __init__(self, path: Path, schema: pa.Schema):
        self._schema = schema
        self._file = _HashedFile(path)
        self._writer = pa.ipc.new_file(self._file, schema)
        self._thread = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None
        self.num_rows = 0

    def append(self, *columns: pa.Array | NDArray[np.generic]) -> None:
        """Append rows; columns of numbers may be NumPy arrays."""
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
        self._file.close()

    def sha256(self) -> str:
        """Return the SHA-256 of the complete file."""
        return self._file.digest.hexdigest()

    def _wait(self) -> None:
        if self._written:
            self._written.result()


# Columns are built from buffers: pyarrow.array copies, visits each value, and imports pandas.


def _number_column(values: NDArray[np.generic], kind: pa.DataType) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(values, dtype=kind.to_pandas_dtype()))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])


def binary_column(joined: bytes, lengths: NDArray[np.int64]) -> pa.Array:
    """Return a column of byte strings that lie end to end."""
    return _ragged_column(pa.large_binary(), joined, lengths)


def text_column(values: list[str]) -> pa.Array:
    """Return a column of texts without line ends."""
    joined = "\n".join([*values, ""]).encode()
    ends = np.flatnonzero(np.frombuffer(joined, dtype=np.uint8) == ord("\n"))
    return _ragged_column(pa.large_string(), joined.replace(b"\n", b""), np.diff(ends, prepend=-1) - 1)


def _ragged_column(kind: pa.DataType, joined: bytes, lengths: NDArray[np.int64]) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return pa.Array.from_buffers(kind, len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(joined)])


class RaggedColumn:
    """Random access to a column of variable length of an Arrow file.

    The file is read, not mapped: pages of a map stay resident, with their neighbours, until the whole file is.
    """

    def __init__(self, path: Path, name: str):
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        rows, offsets, values = [0], [], []
        for array, place in _arrays(self._file, name):
            rows.append(rows[-1] + len(array))
            offsets.append(place(array.buffers()[1]))
            values.append(place(array.buffers()[2]))
        self._first_rows, self._offsets, self._values = (
            np.array(one, dtype=np.int64) for one in (rows, offsets, values)
        )

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    def lengths(self, start: int, end: int) -> NDArray[np.int64]:
        """Return the bytes of each value of the rows from ``start`` up to ``end``."""
        lengths: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
        for batch in range(self._batch(start), self._batch(end - 1) + 1):
            first = self._first_rows[batch]
            here, after = max(start - first, 0), min(end - first, self._first_rows[batch + 1] - first)
            read = os.pread(self._file, 8 * (after - here + 1), self._offsets[batch] + 8 * here)
            offsets = np.frombuffer(read, dtype=np.int64)
            lengths.append(offsets[1:] - offsets[:-1])
        return np.concatenate(lengths)

    def take(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Return the values of ``rows`` in their order; text as UTF-8."""
        batches = np.searchsorted(self._first_rows, rows, side="right") - 1
        offsets = self._offsets[batches] + 8 * (rows - self._first_rows[batches])
        values = []
        for offset, begin in zip(offsets.tolist(), self._values[batches].tolist(), strict=True):
            start, end = _TWO_OFFSETS.unpack(os.pread(self._file, 16, offset))
            values.append(os.pread(self._file, end - start, begin + start))
        return values

    def _batch(self, row: int) -> int:
        return int(np.searchsorted(self._first_rows, row, side="right")) - 1


def _arrays(file: int, name: str) -> Iterator[tuple[pa.Array, Callable[[pa.Buffer | None], int]]]:
    """Yield the pieces of a column, with a function that returns the offset of a buffer in the file."""
    mapped = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    whole = pa.py_buffer(mapped)
    reader = pa.ipc.open_file(pa.BufferReader(whole))
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number).column(name), lambda buffer: buffer.address - whole.address if buffer else 0
        if number % _BATCHES_MAPPED == 0:
            mapped.madvise(mmap.MADV_DONTNEED)  # otherwise the pages around the head of each batch stay resident


class TableReader:
    """Reader of some columns of an Arrow file, in order, one record batch at a time."""

    def __init__(self, path: Path, *columns: str):
        schema = pa.ipc.open_file(open_arrow(path)).schema
        options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in columns])
        self._reader = pa.ipc.open_file(open_arrow(path), options=options)
        self._next_batch = 0
        self._rest = pa.Table.from_batches([], self._reader.schema)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the record batches as they were written."""
        return map(self._reader.get_batch, range(self._reader.num_record_batches))

    def read(self, num_rows: int) -> pa.Table:
        """Return the next rows."""
        pieces = [self._rest]
        while num_rows > sum(map(len, pieces)):
            pieces.append(pa.Table.from_batches([self._reader.get_batch(self._next_batch)]))
            self._next_batch += 1
        table = pa.concat_tables(pieces)
        self._rest = table.slice(num_rows)
        return table.slice(0, num_rows)
