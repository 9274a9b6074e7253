"""Reader of stored records, chunks and scores, some chunks at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from virnucpro_pl.results.origins import UniqueNames, files_of
from virnucpro_pl.sequence.layout import CHUNKS, DNA_ONLY, NOT_NUCLEOTIDES, RECORDS, STATUSES, TableReader
from virnucpro_pl.sequence.seal import MANIFEST, read_sealed

MAX_CHUNKS = 1 << 16
"""Most chunks that are called and written at once"""


class ScoreRows(Protocol):
    """(orfs, 2) scores of ``others`` and ``virus``, in memory or on disk."""

    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]:
        """Return the scores of consecutive ORFs."""
        ...


class Records(NamedTuple):
    """Some consecutive records."""

    first_record: int
    records: pa.RecordBatch
    names: list[str]
    files: NDArray[np.int64]
    """(R,) number of the input file of each record"""
    num_chunks: NDArray[np.int64]


class Chunks(NamedTuple):
    """Some consecutive chunks with all their ORFs."""

    records: Records
    owners: NDArray[np.int64]
    """(C,) index of the record of each chunk"""
    chunks: pa.Table
    num_orfs: NDArray[np.int64]
    """(C,) number of ORFs of each chunk"""
    frames: NDArray[np.uint8]
    scores: NDArray[np.float32]

    @property
    def is_whole(self) -> NDArray[np.bool_]:
        """Return which chunks have no ORF and were scored as a whole, (C,)."""
        return self.chunks.column("status").to_numpy() == STATUSES.index(DNA_ONLY)  # type: ignore[no-any-return]

    @property
    def is_excluded(self) -> NDArray[np.bool_]:
        """Return which chunks are not called because their record holds letters that are no nucleotides, (C,)."""
        return self.chunks.column("status").to_numpy() == STATUSES.index(NOT_NUCLEOTIDES)  # type: ignore[no-any-return]


class ResultReader:
    """Reader of a store and its scores, in order, at most MAX_CHUNKS chunks at a time.

    Args:
        store: folder of the ORF store.
        scores: scores of its ORFs.
    """

    def __init__(self, store: Path, scores: ScoreRows):
        manifest = read_sealed(store / MANIFEST)
        self._inputs = manifest["inputs"]
        self._names = UniqueNames(store, manifest)
        self._record_reader = TableReader(store / "records.arrow", *RECORDS.names)
        self._chunk_reader = TableReader(store / "chunks.arrow", *CHUNKS.names)
        self._orf_reader = TableReader(store / "orfs.arrow", "frame")
        self._scores = scores
        self._orf = 0

    def records(self) -> Iterator[Records]:
        """Yield all records, about 1 MiB of sequences or one record at a time."""
        first = 0
        for records in self._record_reader.batches():
            names = self._names.of(first, records.column("name").to_pylist())
            files = files_of(self._inputs, first, len(records))
            yield Records(first, records, names, files, records.column("chunks").to_numpy())
            first += len(records)

    def chunks(self, records: Records) -> Iterator[Chunks]:
        """Yield the chunks of records in one or more blocks; the chunks of all earlier records must have been read."""
        ends = np.cumsum(records.num_chunks)
        num_chunks = int(ends[-1])
        for start in range(0, max(num_chunks, 1), MAX_CHUNKS):
            chunks = self._chunk_reader.read(min(MAX_CHUNKS, num_chunks - start))
            owners = np.searchsorted(ends, np.arange(start, start + len(chunks)), side="right")
            num_orfs = chunks.column("orfs").to_numpy().astype(np.int64)
            frames = self._orf_reader.read(int(num_orfs.sum())).column("frame").to_numpy()
            end = self._orf + len(frames)
            yield Chunks(records, owners, chunks, num_orfs, frames, np.asarray(self._scores[self._orf : end]))
            self._orf = end
