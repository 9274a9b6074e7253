"""Files beyond 4 GiB, made sparse so that they take no space."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from virnucpro_pl.sequence.layout import ORFS, TableReader, binary_column
from virnucpro_pl.sequence.seal import write_sealed
from virnucpro_pl.sequence.store import OrfStore

MIB = 1 << 20
ZEROS = bytes(64 * MIB)


class SparseFile:
    """A file that leaves holes for the zeros written to it."""

    closed = False

    def __init__(self, path: Path):
        self._stream = path.open("wb")

    def write(self, data: bytes) -> int:
        if len(data) == len(ZEROS) and data == ZEROS:
            self._stream.seek(len(data), 1)
            return len(data)
        return self._stream.write(data)

    def tell(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def orf_batch(record: int, nucleotides: bytes, lengths: list[int]) -> pa.RecordBatch:
    count = len(lengths)
    proteins = [b"M" * (record % 7 + 1)] * count
    columns = [
        pa.array([record] * count, pa.int64()),
        pa.array(range(count), pa.int64()),
        pa.array([row % 6 for row in range(count)], pa.uint8()),
        binary_column(nucleotides, np.array(lengths)),
        pa.array(proteins, pa.large_binary()),
    ]
    return pa.record_batch(columns, schema=ORFS)


def test_orfs_beyond_four_gib_are_read_as_they_are(tmp_path: Path) -> None:
    """R20: rows before, across and behind the border, by place, by length and in order."""
    path = tmp_path / "orfs.arrow"
    sparse = SparseFile(path)
    with pa.ipc.new_file(pa.PythonFile(sparse, mode="w"), ORFS) as writer:
        writer.write_batch(orf_batch(0, b"ACGTAC", [4, 2]))
        for record in range(1, 66):
            writer.write_batch(orf_batch(record, ZEROS, [60 * MIB, 4 * MIB]))
        writer.write_batch(orf_batch(66, b"GGGTTTTC", [3, 5]))
    sparse.close()
    write_sealed(tmp_path / "manifest.json", {})
    store = OrfStore(tmp_path)

    assert path.stat().st_size > 4 << 30
    assert path.stat().st_blocks * 512 < 64 * MIB, "not sparse"
    assert store.nucleotides.take(np.array([133, 0, 132, 1])) == [b"TTTTC", b"ACGT", b"GGG", b"AC"]
    assert store.proteins.take(np.array([133, 3, 0])) == [b"MMMM", b"MM", b"M"]
    assert store.nucleotides.take(np.array([131])) == [bytes(4 * MIB)]
    assert store.nucleotides.lengths(129, 134).tolist() == [4 * MIB, 60 * MIB, 4 * MIB, 3, 5]
    assert TableReader(path, "frame").read(134).column("frame").to_pylist() == [0, 1] * 67
