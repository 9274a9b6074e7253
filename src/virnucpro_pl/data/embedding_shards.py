"""One file of cached embeddings: written once, memory-mapped afterwards."""

import os
import uuid
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from virnucpro_pl.files.durable import replacing

FORMAT_VERSION = "1"
"""To be raised also when encoders come to compute other numbers: embeddings of another version are not used."""
SUFFIX = ".arrow"


class DamagedShardError(Exception):
    """The file holds something else than a shard of this encoder."""


def write_shard(folder: Path, fingerprint: str, keys: NDArray[np.uint64], embeddings: NDArray[np.floating]) -> None:
    """Write embeddings as a new file: under another name first, flushed to the disk, then renamed.

    Args:
        folder: where the shards of the encoder are.
        fingerprint: tells the encoder and its numerics apart.
        keys: (N, 2) of the sequences.
        embeddings: (N, D) float32 or float16, kept as they are.

    Raises:
        OSError: it cannot be written.
    """
    kind = pa.from_numpy_dtype(embeddings.dtype)
    schema = _schema(fingerprint, embeddings.shape[1], kind)
    values = pa.Array.from_buffers(kind, embeddings.size, [None, pa.py_buffer(embeddings)])
    columns = [
        _column(keys[:, 0]),
        _column(keys[:, 1]),
        _column(np.array([zlib.crc32(row) for row in embeddings], dtype=np.uint32)),
        pa.Array.from_buffers(schema.field("embedding").type, len(keys), [None], children=[values]),
    ]
    shard = folder / f"{uuid.uuid4().hex}{SUFFIX}"  # whoever else writes here takes another name
    with replacing(shard) as unfinished, unfinished.open("wb") as stream:
        with pa.ipc.new_file(stream, schema) as writer:
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _schema(fingerprint: str, width: int, kind: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            ("key_high", pa.uint64()),
            ("key_low", pa.uint64()),
            ("crc32", pa.uint32()),
            ("embedding", pa.list_(kind, width)),
        ],
        metadata={"format": FORMAT_VERSION, "encoder": fingerprint},
    )


def _column(values: NDArray[np.unsignedinteger]) -> pa.Array:
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


class Shard:
    """A shard opened for reading; only the pages looked at are read.

    Raises:
        DamagedShardError: the file is cut short, of another encoder, or none of ours.
        OSError: it cannot be read at all.
    """

    def __init__(self, path: Path, fingerprint: str):
        self.path = path
        try:
            batch = _read_batch(path, fingerprint)
        except (pa.ArrowException, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DamagedShardError(
                " ".join(str(error).split())
            ) from error  # Arrow's, also where the file is cut short
        self.high, self.low, self._crc32 = (column.to_numpy() for column in batch.columns[:3])
        self.width: int = batch.schema.field("embedding").type.list_size
        self._embeddings = batch.column("embedding").flatten().to_numpy().reshape(batch.num_rows, self.width)

    def read(
        self, rows: NDArray[np.int64], low: NDArray[np.uint64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return embeddings, whether they are those asked for, and whether they are as they were written.

        Args:
            rows: (N,) which to read.
            low: (N,) second halves of the keys they should have; ``high`` holds the first halves of all.
        """
        embeddings, is_sound = self.take(rows)
        return embeddings, self.low[rows] == low, is_sound

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the (N, D) embeddings of (N,) rows, and (N,) whether they are as they were written."""
        embeddings = self._embeddings[rows]
        crc32 = np.array([zlib.crc32(embedding) for embedding in embeddings], dtype=np.uint32)
        return embeddings.astype(np.float32, copy=False), self._crc32[rows] == crc32


def _read_batch(path: Path, fingerprint: str) -> pa.RecordBatch:
    """Memory-map the one record batch of a shard, as it must look like."""
    table = pa.ipc.open_file(pa.memory_map(os.fsencode(path))).read_all()
    table.validate(full=True)
    batches = table.to_batches()
    kind = table.schema.field(3).type if len(table.schema) == 4 else pa.null()
    width, kind = (kind.list_size, kind.value_type) if pa.types.is_fixed_size_list(kind) else (0, kind)
    is_float = kind in (pa.float32(), pa.float16())
    if not (width and is_float and table.schema.equals(_schema(fingerprint, width, kind), check_metadata=True)):
        raise DamagedShardError("it is of another encoder or another version of this program")
    is_whole = len(batches) == 1 and len(batches[0].column(3).values) == width * batches[0].num_rows
    if not is_whole or any(column.null_count for column in table.columns):
        raise DamagedShardError("it holds something else than embeddings")
    return batches[0]
