"""Writer of the result files, a batch of sequences at a time, in input order."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from virnucpro_pl.errors import escaped
from virnucpro_pl.files.file_names import open_arrow
from virnucpro_pl.files.output_files import CHUNK_TABLE, CONSENSUS_TABLE, ORF_TABLE, RECORD_TABLE, VIRAL_FASTA
from virnucpro_pl.host.stage_clock import CONSENSUS, WRITING, StageClock
from virnucpro_pl.results.call_counts import CallCounts
from virnucpro_pl.results.columns import (
    CHUNK_COLUMNS,
    CONSENSUS_COLUMNS,
    ORF_COLUMNS,
    RECORD_COLUMNS,
    Column,
    names,
    schema,
)
from virnucpro_pl.results.consensus import (
    CALLS,
    NOT_CALLED,
    OTHERS,
    VIRUS,
    CallingRules,
    Consensus,
    call_chunks,
    call_orfs,
    call_records,
    chunk_margins,
    group_sums,
    join,
    withhold,
)
from virnucpro_pl.results.slices import MAX_CHUNKS, Chunks, Records, ResultReader, ScoreRows
from virnucpro_pl.results.sorted_rows import SortedRows
from virnucpro_pl.sequence.store import STATUSES
from virnucpro_pl.sequence.translation import FRAMES, WHOLE_CHUNK

_CHUNK_SCHEMA = schema(CHUNK_COLUMNS)
_FASTA_WIDTH = 60


def write_results(
    store: Path, inputs: list[str], scores: ScoreRows, folder: Path, rules: CallingRules, clock: StageClock
) -> dict[str, Any]:
    """Write all result files into a folder.

    Args:
        store: folder of the ORF store.
        inputs: paths of the input files.
        scores: (orfs, 2) scores of ``others`` and ``virus`` of each ORF of the store.
        folder: folder of the files, which are replaced.
        rules: calling rules.
        clock: clock of the stages.

    Returns:
        The counts of calls: of sequences, chunks and ORFs, and of sequences also by file.
    """
    counts = CallCounts(len(inputs))
    shown_inputs = [escaped(path) for path in inputs]
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        orf_table, record_table, viral_fasta = (
            stack.enter_context((folder / name).open("w", encoding="utf-8", newline="\n"))
            for name in (ORF_TABLE, RECORD_TABLE, VIRAL_FASTA)
        )
        chunk_table = stack.enter_context(_ParquetTable(folder / CHUNK_TABLE))
        consensus_rows = SortedRows(folder)
        _write_header(orf_table, ORF_COLUMNS)
        _write_header(record_table, RECORD_COLUMNS)
        reader = ResultReader(store, scores)
        for records in reader.records():
            called, num_orfs, whole = [], [], []
            for part in reader.chunks(records):
                with clock(CONSENSUS):
                    chunks = call_chunks(part.scores, part.num_orfs, rules)
                with clock(WRITING):
                    ids = name_chunks(part)
                    orf_table.writelines(_orf_rows(part, ids, rules.limit))
                    consensus_rows.extend(_consensus_rows(part, chunks, ids, rules.limit))
                    chunks = withhold(chunks, part.is_excluded)  # the published tables keep them, as published
                    chunk_table.write(_chunk_rows(part, chunks, ids))
                counts.add_orfs(part, rules.limit)
                called.append(chunks)
                whole.append(part.is_whole)
                num_orfs.append(np.where(part.is_whole, 0, part.num_orfs))
            with clock(CONSENSUS):
                chunks = join(called)
                calls = call_records(chunks, records.num_chunks, rules)
            with clock(WRITING):
                orfs = np.concatenate(num_orfs), np.concatenate(whole)
                record_table.writelines(_record_rows(records, *orfs, chunks, calls, shown_inputs, rules.domain_length))
                viral_fasta.writelines(_viral_records(records, calls))
            counts.add(records, chunks, calls, rules.domain_length)
        with clock(WRITING), (folder / CONSENSUS_TABLE).open("wb") as stream:
            stream.write("\t".join(names(CONSENSUS_COLUMNS)).encode() + b"\n")
            consensus_rows.write_to(stream)
    return counts.as_dict()


def _write_header(stream: IO[str], columns: tuple[Column, ...]) -> None:
    stream.write("\t".join(names(columns)) + "\n")


class _ParquetTable:
    """Writer of the Parquet file of chunks, in few large row groups: their metadata stay in memory till the end."""

    def __init__(self, path: Path):
        self._file = open_arrow(path, "wb")
        self._writer = pq.ParquetWriter(self._file, _CHUNK_SCHEMA)
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()
        self._file.close()

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= MAX_CHUNKS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
        self._waiting = []


def name_chunks(part: Chunks) -> list[str]:
    """Return the names of chunks, as in the published tables."""
    names, numbers = part.records.names, part.chunks.column("number").to_pylist()
    return [f"{names[owner]}_chunk_{number}" for owner, number in zip(part.owners.tolist(), numbers, strict=True)]


def _orf_rows(part: Chunks, chunk_ids: list[str], threshold: float) -> Iterator[str]:
    """Yield the rows of the published table, which has none for chunks called by a fallback head."""
    owners = np.repeat(np.arange(len(chunk_ids)), part.num_orfs).tolist()
    viral = call_orfs(part.scores, threshold).tolist()
    columns = (owners, part.frames.tolist(), viral, *_as_text(part.scores.T))
    for owner, frame, is_viral, others, virus in zip(*columns, strict=True):
        if frame == WHOLE_CHUNK:
            continue
        yield f"{chunk_ids[owner]}{FRAMES[frame]}\t{CALLS[VIRUS if is_viral else OTHERS]}\t{others}\t{virus}\n"


def _as_text(columns: NDArray[np.float32]) -> Iterator[list[str]]:
    """Return the shortest decimals of float32 numbers, as printed by NumPy and the published tool."""
    return (list(map(str, column)) for column in columns)


def _consensus_rows(part: Chunks, chunks: Consensus, chunk_ids: list[str], threshold: float) -> Iterator[str]:
    """Yield the rows of the published consensus, which has none for chunks without ORF and counts a tie as virus."""
    is_virus = (chunk_margins(chunks.others_score, chunks.virus_score, threshold) >= 0).tolist()
    has_row = (chunks.calls != NOT_CALLED) & ~part.is_whole
    scores = _as_text(np.stack([chunks.others_score, chunks.virus_score]))
    for index, others, virus in zip(range(len(chunk_ids)), *scores, strict=True):
        if has_row[index]:
            yield f"{chunk_ids[index]}\t{is_virus[index]}\t{others}\t{virus}"


def _record_rows(
    part: Records,
    num_orfs_of_chunks: NDArray[np.int64],
    is_whole: NDArray[np.bool_],
    chunks: Consensus,
    records: Consensus,
    inputs: list[str],
    domain_length: int,
) -> Iterator[str]:
    viral = np.where(is_whole, 0, chunks.viral)
    orfs, viral_orfs, whole = (
        group_sums(members, part.num_chunks) for members in (num_orfs_of_chunks, viral, is_whole)
    )
    called = group_sums(chunks.calls != NOT_CALLED, part.num_chunks)
    lengths = pc.binary_length(part.records.column("sequence"))
    columns = zip(
        range(part.first_record + 1, part.first_record + 1 + len(part.names)),
        part.names,
        lengths.to_pylist(),
        part.num_chunks.tolist(),
        called.tolist(),
        records.viral.tolist(),
        orfs.tolist(),
        viral_orfs.tolist(),
        records.virus_score.tolist(),
        records.calls.tolist(),
        part.records.column("status").to_pylist(),
        whole.tolist(),
        part.files.tolist(),
        strict=True,
    )
    for (
        number,
        name,
        length,
        num_chunks,
        num_called,
        viral,
        num_orfs,
        num_viral_orfs,
        score,
        call,
        status,
        num_whole,
        file,
    ) in columns:
        fraction, best = (f"{viral / num_called:.6f}", f"{score:.6f}") if num_called else ("NA", "NA")
        yield (
            f"{number}\t{name}\t{length}\t{num_chunks}\t{num_called}\t{viral}\t{fraction}\t{num_orfs}\t{num_viral_orfs}"
            f"\t{best}\t{CALLS[call] or 'NA'}\t{STATUSES[status]}\t{num_whole}\t{_domain(length, domain_length)}"
            f"\t{inputs[file]}\n"
        )


def _domain(length: int, domain_length: int) -> str:
    """Return ``yes`` for a sequence that is too short for the head, ``NA`` if that is unknown."""
    return "NA" if domain_length == 0 else "yes" if length < domain_length else "no"


def _viral_records(part: Records, records: Consensus) -> Iterator[str]:
    for index in np.flatnonzero(records.calls == VIRUS).tolist():
        words = part.records.column("description")[index].as_py().split(None, 1)
        letters = memoryview(
            part.records.column("sequence")[index].as_buffer()
        )  # without a copy, as it may have a gigabyte
        yield f">{' '.join([part.names[index], *words[1:]])}\n"
        for start in range(0, len(letters), _FASTA_WIDTH):
            yield str(letters[start : start + _FASTA_WIDTH], "latin-1") + "\n"


def _chunk_rows(part: Chunks, chunks: Consensus, chunk_ids: list[str]) -> pa.Table:
    by_frame = np.full((len(chunk_ids), len(FRAMES)), np.nan, dtype=np.float32)
    framed = part.frames != WHOLE_CHUNK
    owners = np.repeat(np.arange(len(chunk_ids)), part.num_orfs)
    by_frame[owners[framed], part.frames[framed]] = part.scores[framed, 1]
    uncalled = chunks.calls == NOT_CALLED
    return pa.table(
        [
            part.records.first_record + 1 + part.owners,
            [part.records.names[owner] for owner in part.owners.tolist()],
            chunk_ids,
            part.chunks.column("start"),
            part.chunks.column("end"),
            np.where(part.is_whole, 0, part.num_orfs).astype(np.uint8),
            np.where(part.is_whole, 0, chunks.viral).astype(np.uint8),
            pa.array(chunks.virus_score, mask=uncalled),
            pa.array(chunks.others_score, mask=uncalled),
            [CALLS[call] for call in chunks.calls.tolist()],
            [STATUSES[status] for status in part.chunks.column("status").to_pylist()],
            *(pa.array(column, mask=np.isnan(column)) for column in by_frame.T),
        ],
        schema=_CHUNK_SCHEMA,
    )
