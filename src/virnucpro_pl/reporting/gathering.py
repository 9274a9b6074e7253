"""Data of a report, read from the result files in constant memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.file_names import open_arrow
from virnucpro_pl.files.output_files import CHUNK_TABLE, RECORD_TABLE
from virnucpro_pl.results.run_check import finished_run
from virnucpro_pl.runs.record_types import RunRecord
from virnucpro_pl.sequence.translation import FRAMES

CALLS = ("virus", "others", "ambiguous", "NA")
"""Calls in the order of display; the last stands for no call"""
SCORE_BINS = 50
LENGTH_EDGES = np.unique(np.round(np.logspace(1, 9, 65)).astype(np.int64))
"""Bounds of the bins of sequence lengths in nt, eight for each factor of ten"""
_RECORD_COLUMNS = {
    "record": pa.int64(),
    "sequence_id": pa.string(),
    "length": pa.int64(),
    "chunks": pa.int64(),
    "called_chunks": pa.int64(),
    "viral_chunks": pa.int64(),
    "viral_chunk_fraction": pa.float64(),
    "max_virus_score": pa.float64(),
    "call": pa.string(),
    "status": pa.string(),
    "out_of_domain": pa.string(),
    "file": pa.string(),
}
_RANKING = [("viral_chunks", "descending"), ("max_virus_score", "descending"), ("record", "ascending")]
_CHUNK_COLUMNS = ["record", "start", "end", "call", "max_virus_score", *(f"virus_score_{frame}" for frame in FRAMES)]
_SURE = 0.9
_LEANING = 0.7


@dataclass
class Track:
    """Chunk scores along one sequence."""

    record: int
    sequence_id: str
    length: int
    call: str
    num_chunks: int
    step: int
    """distance of the chunks that are kept"""
    chunks: pa.Table
    """columns start, end (nt), call, max_virus_score and virus_score of each frame"""


@dataclass
class ReportData:
    """Data of a report."""

    folder: Path
    run: RunRecord
    """run record"""
    record_scores: NDArray[np.int64] = field(default_factory=lambda: _no_counts(SCORE_BINS))
    """(calls, bins) sequences by call and highest virus score"""
    chunk_scores: NDArray[np.int64] = field(default_factory=lambda: _no_counts(SCORE_BINS))
    """(calls, bins) chunks by call and highest virus score"""
    lengths: NDArray[np.int64] = field(default_factory=lambda: _no_counts(len(LENGTH_EDGES) - 1))
    """(calls, bins) sequences by call and length"""
    sureness: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("sure", "leaning", "weak"), 0))
    """viral sequences by their highest score: ``sure`` from 0.9, ``leaning`` from 0.7, ``weak``"""
    top: pa.Table = field(default_factory=lambda: pa.schema(_RECORD_COLUMNS).empty_table())
    """the viral sequences with the highest scores"""
    tracks: list[Track] = field(default_factory=list)


def gather(
    folder: Path,
    most_records: int,
    most_tracks: int,
    most_points: int,
    named: list[str],
    run: RunRecord | None = None,
) -> ReportData:
    """Read the data of a report from the output folder of a finished ``predict``.

    Args:
        folder: output folder.
        most_records: largest number of viral sequences to list.
        most_tracks: largest number of sequences to show along their length; viral ones first, then long ones.
        most_points: largest number of chunks of one sequence.
        named: ids of the sequences to show instead, in this order; empty: as above.
        run: run record; None: read it.

    Raises:
        UserError: the folder holds no finished run, a file is missing, or a named sequence is not in it.
    """
    data = ReportData(folder, run or _run_record(folder))
    shown = data.top
    for batch in record_batches(folder / RECORD_TABLE):
        _count_records(data, batch)
        viral = batch.filter(pc.equal(batch["call"], "virus"))
        data.top = _best(data.top, viral, most_records)
        if named:
            shown = pa.concat_tables([shown, batch.filter(pc.is_in(batch["sequence_id"], pa.array(named)))])
        else:
            long = batch.filter(pc.and_(pc.greater(batch["chunks"], 1), pc.greater(batch["called_chunks"], 0)))
            shown = _selection(pa.concat_tables([shown, long]), most_tracks)
    if missing := set(named) - set(shown["sequence_id"].to_pylist()):
        raise UserError(f"records: {', '.join(sorted(missing))} not among the records of {folder / RECORD_TABLE}")
    if named:
        shown = shown.take(pc.index_in(pa.array(named), shown["sequence_id"]))
    _read_chunks(data, shown, most_points)
    return data


def _run_record(folder: Path) -> RunRecord:
    run = finished_run(folder, "report")
    for name in (RECORD_TABLE, CHUNK_TABLE):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; copy it back, or run predict again with overwrite=true")
    return run


def _no_counts(bins: int) -> NDArray[np.int64]:
    return np.zeros((len(CALLS), bins), dtype=np.int64)


def record_batches(path: Path) -> Iterator[pa.Table]:
    """Yield ``sequences.tsv``, some rows at a time; NA is null in columns of numbers.

    Raises:
        UserError: the table is damaged.
    """
    try:
        reader = csv.open_csv(
            open_arrow(path),
            csv.ReadOptions(block_size=1 << 22),
            csv.ParseOptions(delimiter="\t", quote_char=False),
            csv.ConvertOptions(
                include_columns=list(_RECORD_COLUMNS),
                column_types=_RECORD_COLUMNS,
                null_values=["NA"],
                strings_can_be_null=False,
            ),
        )
        for batch in reader:
            yield pa.Table.from_batches([batch])
    except pa.ArrowException as error:
        reason = escaped(" ".join(str(error).split()))
        raise UserError(f"{path}: damaged ({reason}); predict again with overwrite=true") from error


def _count_records(data: ReportData, batch: pa.Table) -> None:
    calls = _call_numbers(batch["call"])
    scores = _as_floats(batch["max_virus_score"])
    _count(data.record_scores, calls, _score_bins(scores))
    lengths = np.clip(batch["length"].to_numpy(), LENGTH_EDGES[0], LENGTH_EDGES[-1] - 1)
    _count(data.lengths, calls, np.searchsorted(LENGTH_EDGES, lengths, side="right") - 1)
    viral = scores[calls == CALLS.index("virus")]
    for name, count in zip(
        ("sure", "leaning", "weak"),
        ((viral >= _SURE).sum(), ((viral >= _LEANING) & (viral < _SURE)).sum(), (viral < _LEANING).sum()),
        strict=True,
    ):
        data.sureness[name] += int(count)


def _count(table: NDArray[np.int64], calls: NDArray[np.int64], bins: NDArray[np.int64]) -> None:
    has_score = bins >= 0
    np.add.at(table, (calls[has_score], bins[has_score]), 1)


def _call_numbers(calls: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the index of each call in ``CALLS``; null is no call."""
    numbers = pc.index_in(pc.fill_null(calls, CALLS[-1]), pa.array(CALLS))
    return numbers.to_numpy().astype(np.int64)  # type: ignore[no-any-return]


def _as_floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return pc.fill_null(pc.cast(column, pa.float64()), float("nan")).to_numpy()  # type: ignore[no-any-return]


def _score_bins(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin of each score, -1 for a missing score."""
    bins = np.minimum(np.nan_to_num(scores, nan=0.0) * SCORE_BINS, SCORE_BINS - 1).astype(np.int64)
    return np.where(np.isnan(scores), -1, bins)


def _best(first: pa.Table, second: pa.Table, most: int) -> pa.Table:
    return pa.concat_tables([first, second]).sort_by(_RANKING).slice(0, most).combine_chunks()


def _selection(records: pa.Table, most: int) -> pa.Table:
    """Return viral sequences by rank, then the longest of the others."""
    viral = pc.equal(records["call"], "virus")
    first = records.filter(viral).sort_by(_RANKING)
    others = records.filter(pc.invert(viral)).sort_by([("length", "descending"), ("record", "ascending")])
    # Some others, for comparison.
    room = min(len(others), max(most - len(first), most // 4))
    return pa.concat_tables([first.slice(0, most - room), others.slice(0, room)]).combine_chunks()


def _read_chunks(data: ReportData, shown: pa.Table, most_points: int) -> None:
    """Count all chunks and keep those of the tracks."""
    records = shown["record"].to_numpy()
    kept: list[pa.Table] = []
    steps = dict(zip(records.tolist(), [-(-n // most_points) for n in shown["chunks"].to_pylist()], strict=True))
    seen: dict[int, int] = dict.fromkeys(steps, 0)
    with open_arrow(data.folder / CHUNK_TABLE) as stream, pq.ParquetFile(stream) as file:
        for batch in file.iter_batches(columns=_CHUNK_COLUMNS):
            scores = _as_floats(pa.chunked_array([batch["max_virus_score"]]))
            _count(data.chunk_scores, _call_numbers(pa.chunked_array([batch["call"]])), _score_bins(scores))
            owners = batch["record"].to_numpy()
            for record in np.intersect1d(owners, records).tolist():
                rows = np.flatnonzero(owners == record)
                wanted = rows[(seen[record] + np.arange(len(rows))) % steps[record] == 0]
                seen[record] += len(rows)
                kept.append(pa.Table.from_batches([batch.take(pa.array(wanted))]))
        chunks = pa.concat_tables([file.schema_arrow.empty_table().select(_CHUNK_COLUMNS), *kept])
    for row in shown.to_pylist():
        data.tracks.append(
            Track(
                row["record"],
                row["sequence_id"],
                row["length"],
                row["call"],
                row["chunks"],
                steps[row["record"]],
                chunks.filter(pc.equal(chunks["record"], row["record"])),
            )
        )
