"""Shard of an embedding cache: a file written once and memory-mapped afterwards."""

import os
import uuid
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from virnucpro_pl.files.durable import replacing

FORMAT_VERSION = "1"
"""Raise it also if encoders compute different embeddings; embeddings of another version are ignored."""
SUFFIX = ".arrow"


class DamagedShardError(Exception):
    """The file is damaged or no shard of this encoder."""


def write_shard(folder: Path, fingerprint: str, keys: NDArray[np.uint64], embeddings: NDArray[np.floating]) -> None:
    """Write embeddings as a new shard.

    Args:
        folder: folder of the shards of the encoder.
        fingerprint: fingerprint of the encoder.
        keys: (N, 2) keys of the sequences.
        embeddings: (N, D) float32 or float16.

    Raises:
        OSError: the shard cannot be written.
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
    shard = folder / f"{uuid.uuid4().hex}{SUFFIX}"  # unique among all writers
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
    """Shard opened for reading, memory-mapped.

    Raises:
        DamagedShardError: the file is truncated, of another encoder, or no shard.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path, fingerprint: str):
        self.path = path
        try:
            batch = _read_batch(path, fingerprint)
        except (pa.ArrowException, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DamagedShardError(" ".join(str(error).split())) from error
        self.high, self.low, self._crc32 = (column.to_numpy() for column in batch.columns[:3])
        self.width: int = batch.schema.field("embedding").type.list_size
        self._embeddings = batch.column("embedding").flatten().to_numpy().reshape(batch.num_rows, self.width)

    def read(
        self, rows: NDArray[np.int64], low: NDArray[np.uint64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return some embeddings, whether their keys match, and whether they are intact.

        Args:
            rows: (N,) rows of the embeddings.
            low: (N,) expected second halves of their keys; ``high`` holds the first halves of all.
        """
        embeddings, is_intact = self.take(rows)
        return embeddings, self.low[rows] == low, is_intact

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the (N, D) embeddings of (N,) rows, and (N,) whether they are intact."""
        embeddings = self._embeddings[rows]
        crc32 = np.array([zlib.crc32(embedding) for embedding in embeddings], dtype=np.uint32)
        return embeddings.astype(np.float32, copy=False), self._crc32[rows] == crc32


def _read_batch(path: Path, fingerprint: str) -> pa.RecordBatch:
    """Memory-map the only record batch of a shard and check its schema."""
    table = pa.ipc.open_file(pa.memory_map(os.fsencode(path))).read_all()
    table.validate(full=True)
    batches = table.to_batches()
    kind = table.schema.field(3).type if len(table.schema) == 4 else pa.null()
    width, kind = (kind.list_size, kind.value_type) if pa.types.is_fixed_size_list(kind) else (0, kind)
    is_float = kind in (pa.float32(), pa.float16())
    if not (width and is_float and table.schema.equals(_schema(fingerprint, width, kind), check_metadata=True)):
        raise DamagedShardError("belongs to another encoder or another version of this program")
    is_whole = len(batches) == 1 and len(batches[0].column(3).values) == width * batches[0].num_rows
    if not is_whole or any(column.null_count for column in table.columns):
        raise DamagedShardError("holds something other than embeddings")
    return batches[0]
