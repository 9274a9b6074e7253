"""Reading what the results are made of, some chunks at a time."""

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
"""Chunks that are called and written at once"""


class ScoreRows(Protocol):
    """(orfs, 2) probabilities of ``others`` and ``virus``; need not be in memory."""

    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]:
        """Scores of consecutive ORFs."""
        ...


class Records(NamedTuple):
    """Some consecutive records."""

    first_record: int
    records: pa.RecordBatch
    names: list[str]
    files: NDArray[np.int64]
    """number of the input each comes from"""
    num_chunks: NDArray[np.int64]


class Chunks(NamedTuple):
    """Some consecutive chunks of them with all their ORFs."""

    records: Records
    owners: NDArray[np.int64]
    """which of the records each chunk is of"""
    chunks: pa.Table
    num_orfs: NDArray[np.int64]
    """ORFs of each chunk"""
    frames: NDArray[np.uint8]
    scores: NDArray[np.float32]

    @property
    def is_whole(self) -> NDArray[np.bool_]:
        """(C,) whether a chunk without open frame was scored as a whole."""
        return self.chunks.column("status").to_numpy() == STATUSES.index(DNA_ONLY)  # type: ignore[no-any-return]

    @property
    def is_excluded(self) -> NDArray[np.bool_]:
        """(C,) whether a chunk is not called because its record holds letters that are no nucleotides."""
        return self.chunks.column("status").to_numpy() == STATUSES.index(NOT_NUCLEOTIDES)  # type: ignore[no-any-return]


class ResultReader:
    """Reads a store and its scores once, in order, at most MAX_CHUNKS chunks at a time.

    Args:
        store: the ORF store.
        scores: of its ORFs.
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
        """Yield the chunks of these records, once those of all records before were read; at least one, maybe empty."""
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
