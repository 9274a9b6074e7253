"""Check that the result files agree with each other, row by row, in constant memory."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from virnucpro_pl.errors import escaped
from virnucpro_pl.files.output_files import CHUNK_TABLE, CONSENSUS_TABLE, ORF_TABLE, RECORD_TABLE, VIRAL_FASTA
from virnucpro_pl.results.call_tally import CallTally
from virnucpro_pl.results.columns import CHUNK_COLUMNS, ORF_COLUMNS, RECORD_COLUMNS
from virnucpro_pl.results.consensus import (
    CALLS,
    NOT_CALLED,
    CallingRules,
    Consensus,
    Tie,
    call_chunks,
    call_orfs,
    call_records,
    chunk_margins,
    group_sums,
    join,
    withhold,
)
from virnucpro_pl.results.consensus_check import check_consensus, hash_of_rows
from virnucpro_pl.results.origins import files_of
from virnucpro_pl.results.row_streams import (
    Comparison,
    DisagreementError,
    Rows,
    floats,
    parquet_rows,
    text_rows,
)
from virnucpro_pl.results.sequence_check import compare_sequences, records_called, sequences_of
from virnucpro_pl.results.slices import MAX_CHUNKS
from virnucpro_pl.runs.record_types import RunRecord
from virnucpro_pl.sequence.chunks import Chunks, Geometry, check_chunking, cut_records
from virnucpro_pl.sequence.layout import STATUSES
from virnucpro_pl.sequence.translation import FRAMES

_COMPARED_TYPES = {pa.float64(): pa.string(), pa.uint8(): pa.int64()}
"""Numbers of ``sequences.tsv`` are compared as text, digit by digit"""
_RECORD_TYPES, _CHUNK_TYPES, _ORF_TYPES = (
    {column.name: _COMPARED_TYPES.get(column.type, column.type) for column in columns}
    for columns in (RECORD_COLUMNS, CHUNK_COLUMNS, ORF_COLUMNS)
)
_MOST_OFF = 0.01  # rounding error of the sum of the two scores of an ORF
_CALLED, _WHOLE, _NO_ORF, _AMBIGUOUS_ONLY, _EXCLUDED, _TOO_SHORT, _EMPTY = range(len(STATUSES))


def disagreements(folder: Path, run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield each result file that contradicts another one, with the first difference.

    Args:
        folder: output folder.
        run: its checked run record.

    Raises:
        UserError: the run record holds impossible calling rules.
    """
    tables = _Tables(folder, run)
    try:
        tables.check_rows()
        check_consensus(folder / CONSENSUS_TABLE, tables.consensus)
    except DisagreementError as found:
        yield found.file, str(found)
    try:
        compare_sequences(VIRAL_FASTA, sequences_of(folder / VIRAL_FASTA), records_called(folder, ("virus",)))
    except DisagreementError as found:
        yield found.file, str(found)


class _Called(NamedTuple):
    """Chunks whose rows agree with the rows of their ORFs."""

    calls: Consensus
    num_orfs: NDArray[np.int64]
    status: NDArray[np.int64]
    """(C,) index in ``STATUSES``"""

    @property
    def is_whole(self) -> NDArray[np.bool_]:
        """Return which chunks a fallback head called, (C,)."""
        return self.status == _WHOLE  # type: ignore[no-any-return]


class _Tables:
    """Tables of one run, read side by side.

    Args:
        folder: output folder.
        run: its run record.

    Raises:
        UserError: the run record holds impossible calling rules.
    """

    def __init__(self, folder: Path, run: RunRecord):
        fingerprint = run["identity"]
        self._folder = folder
        self._counts = run["counts"]
        self._rules = CallingRules(
            cast("Tie", fingerprint["results.tie"]),
            fingerprint["results.min_viral_fraction"],
            fingerprint["results.threshold"],
        )
        self._rules.check()
        self._cutting = fingerprint["data.chunk_length"], cast("Geometry", fingerprint["data.chunking"])
        check_chunking(*self._cutting)
        self._paths = pa.array([escaped(source["path"]) for source in self._counts["inputs"]], pa.string())
        self._tally = CallTally(self._counts)
        self._orf_rows = Rows(ORF_TABLE, text_rows(folder / ORF_TABLE, _ORF_TYPES), _ORF_TYPES)
        self._chunk_rows = Rows(CHUNK_TABLE, parquet_rows(folder / CHUNK_TABLE, _CHUNK_TYPES), _CHUNK_TYPES)
        self.consensus = 0
        """Sum of the hashes of the expected rows of the consensus table"""

    def check_rows(self) -> None:
        """Compare records, chunks and ORFs with each other and with the counts of the run record.

        Raises:
            DisagreementError: a row differs.
        """
        first = num_chunks = 0
        for table in text_rows(self._folder / RECORD_TABLE, _RECORD_TYPES):
            ends = np.cumsum(table.column("chunks").to_numpy())
            if len(ends) and (num_chunks := num_chunks + int(ends[-1])) > self._counts["chunks"]:
                raise DisagreementError(RECORD_TABLE, "has more chunks than predictions.parquet has rows")
            borders = np.searchsorted(ends, np.arange(0, ends[-1] if len(ends) else 0, MAX_CHUNKS), side="right")
            for start, end in pairwise(np.unique([0, *borders, len(ends)]).tolist()):
                self._check_records(first + start, table.slice(start, end - start))
            first += len(table)
        self._chunk_rows.check_end()
        self._orf_rows.check_end()
        self._tally.check_against_run_record()

    def _check_records(self, first: int, records: pa.Table) -> None:
        """Compare some records with their chunks."""
        lengths = records.column("length").to_numpy()
        rows = Comparison(RECORD_TABLE, first, records)
        rows.check("record", np.arange(first + 1, first + 1 + len(records)), "their order")
        rows.check("chunks", -(-lengths // self._cutting[0]), "its length")
        names = records.column("sequence_id").combine_chunks()
        cut = cut_records(lengths, *self._cutting)
        called = [
            self._check_chunks(first, names, Chunks(*(column[start : start + MAX_CHUNKS] for column in cut)))
            for start in range(0, max(len(cut.record), 1), MAX_CHUNKS)
        ]
        chunks = _Called(
            join([part.calls for part in called]),
            np.concatenate([part.num_orfs for part in called]),
            np.concatenate([part.status for part in called]),
        )
        best = np.full(len(records), _EMPTY)
        num_chunks = np.bincount(cut.record, minlength=len(records))
        if len(chunks.status):
            best[num_chunks > 0] = np.minimum.reduceat(chunks.status, np.flatnonzero(cut.number == 1))
        rows.check("status", _words(STATUSES, best), CHUNK_TABLE)
        calls = self._check_calls(rows, chunks, num_chunks)
        files = files_of(self._counts["inputs"], first, len(records))
        if len(files) and files[-1] == len(self._paths):
            raise DisagreementError(RECORD_TABLE, "has more records than the inputs in run.json")
        rows.check("file", self._paths.take(pa.array(files)), "run.json")
        self._tally.add_records(files, calls, best, lengths, records.column("out_of_domain"))

    def _check_calls(self, rows: Comparison, chunks: _Called, num_chunks: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Compare the columns of records that depend on their chunks; return the calls of the records."""
        calls = call_records(chunks.calls, num_chunks, self._rules)
        num_called = group_sums(chunks.calls.calls != NOT_CALLED, num_chunks)
        viral_orfs = np.where(chunks.is_whole, 0, chunks.calls.viral)
        rows.check("called_chunks", num_called, CHUNK_TABLE)
        rows.check("viral_chunks", calls.viral, CHUNK_TABLE)
        rows.check("orfs", group_sums(chunks.num_orfs, num_chunks), CHUNK_TABLE)
        rows.check("viral_orfs", group_sums(viral_orfs, num_chunks), CHUNK_TABLE)
        rows.check("dna_only_chunks", group_sums(chunks.is_whole, num_chunks), CHUNK_TABLE)
        viral = zip(calls.viral.tolist(), num_called.tolist(), strict=True)
        rows.check(
            "viral_chunk_fraction", [f"{part / all_:.6f}" if all_ else "NA" for part, all_ in viral], CHUNK_TABLE
        )
        scores = zip(calls.virus_score.tolist(), num_called.tolist(), strict=True)
        rows.check("max_virus_score", [f"{score:.6f}" if all_ else "NA" for score, all_ in scores], CHUNK_TABLE)
        rows.check("call", [CALLS[call] or "NA" for call in calls.calls.tolist()], CHUNK_TABLE)
        return calls.calls

    def _check_chunks(self, first: int, names: pa.Array, cut: Chunks) -> _Called:
        """Compare some chunks with the lengths of their records and with their ORFs.

        Args:
            first: number of the first record in ``names``.
            names: names of the records.
            cut: positions of the chunks in the records.
        """
        row = self._chunk_rows.row
        table = self._chunk_rows.read(len(cut.record))
        sequence_ids = names.take(pa.array(cut.record))
        ids = pc.binary_join_element_wise(sequence_ids, pc.cast(pa.array(cut.number), pa.string()), "_chunk_")
        rows = Comparison(CHUNK_TABLE, row, table)
        rows.check("record", first + 1 + cut.record, RECORD_TABLE)
        rows.check("sequence_id", sequence_ids, RECORD_TABLE)
        rows.check("chunk_id", ids, RECORD_TABLE)
        rows.check("start", cut.start, "the length of its record")
        rows.check("end", cut.end, "the length of its record")
        frames = np.stack([floats(table, f"virus_score_{frame}") for frame in FRAMES], axis=1)
        num_orfs = np.count_nonzero(~np.isnan(frames), axis=1)
        status = _numbers(STATUSES, table.column("status"))
        has_codon = cut.end - cut.start >= 3
        status = np.select(
            [
                status == _EXCLUDED,
                num_orfs > 0,
                has_codon & np.isin(status, (_CALLED, _TOO_SHORT, _EMPTY, -1)),
                ~has_codon & np.isin(status, (_CALLED, _WHOLE, _NO_ORF, _AMBIGUOUS_ONLY, _EMPTY, -1)),
            ],
            [_EXCLUDED, _CALLED, _NO_ORF, _TOO_SHORT],
            status,
        )
        rows.check("orfs", num_orfs, "the scores of its frames")
        rows.check("status", _words(STATUSES, status), "the scores of its frames")
        own = np.stack([floats(table, "max_others_score"), floats(table, "max_virus_score")], axis=1)
        scores = self._check_orfs(ids, frames)
        published = _Called(self._call(scores, num_orfs, status == _WHOLE, own), num_orfs, status)
        self.consensus += self._expected_consensus(ids, published)
        chunks = published._replace(calls=withhold(published.calls, status == _EXCLUDED))
        rows.check("viral_orfs", np.where(chunks.is_whole, 0, chunks.calls.viral), ORF_TABLE)
        rows.check("max_others_score", chunks.calls.others_score, ORF_TABLE)
        rows.check("max_virus_score", chunks.calls.virus_score, ORF_TABLE)
        rows.check("call", [CALLS[call] for call in chunks.calls.calls.tolist()], "its scores")
        self._tally.add_chunks(chunks.calls.calls, status)
        return chunks

    def _check_orfs(self, chunk_ids: pa.Array, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compare the rows of ORFs with the scores of their chunks; return (F, 2) scores.

        Args:
            chunk_ids: (C,) ids of the chunks.
            frames: (C, 6) virus scores of their frames, NaN without ORF.
        """
        chunk, frame = np.nonzero(~np.isnan(frames))
        row = self._orf_rows.row
        table = self._orf_rows.read(len(chunk))
        scores = np.stack([floats(table, "score1"), floats(table, "score2")], axis=1)
        is_viral = call_orfs(scores, self._rules.limit)
        rows = Comparison(ORF_TABLE, row, table)
        ids = pc.binary_join_element_wise(chunk_ids.take(pa.array(chunk)), _words(FRAMES, frame), "")
        rows.check("Sequence_ID", ids, CHUNK_TABLE)
        rows.check("score2", frames[chunk, frame], CHUNK_TABLE)
        is_pair = np.abs(scores.sum(axis=1) - 1) < _MOST_OFF
        rows.check("score1", np.where(is_pair, scores[:, 0], 1 - scores[:, 1]), "score2")
        rows.check("Prediction", _words(CALLS[:2], is_viral.astype(np.int64)), "its scores")
        self._tally.add_orfs(is_viral)
        return scores

    def _call(
        self,
        scores: NDArray[np.float32],
        num_orfs: NDArray[np.int64],
        is_whole: NDArray[np.bool_],
        own: NDArray[np.float32],
    ) -> Consensus:
        """Call chunks by their ORFs, or by their own (C, 2) scores if a fallback head called them."""
        sizes = num_orfs + is_whole
        of_whole = np.zeros(sizes.sum(), dtype=np.bool_)
        of_whole[(np.cumsum(sizes) - sizes)[is_whole]] = True
        all_scores = np.empty((len(of_whole), 2), dtype=np.float32)
        all_scores[of_whole], all_scores[~of_whole] = own[is_whole], scores
        return call_chunks(all_scores, sizes, self._rules)

    def _expected_consensus(self, ids: pa.Array, chunks: _Called) -> int:
        calls = chunks.calls
        has_row = (calls.calls != NOT_CALLED) & ~chunks.is_whole
        others, virus = calls.others_score[has_row], calls.virus_score[has_row]
        is_virus = map(str, (chunk_margins(others, virus, self._rules.limit) >= 0).tolist())
        return hash_of_rows(ids.filter(pa.array(has_row)).to_pylist(), is_virus, others.tolist(), virus.tolist())


def _words(words: tuple[str | None, ...], numbers: NDArray[Any]) -> pa.Array:
    return pa.array(words, pa.string()).take(pa.array(numbers))


def _numbers(words: tuple[str, ...], column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the index of each word, -1 for unknown words."""
    return pc.fill_null(pc.index_in(column, pa.array(words)), -1).to_numpy().astype(np.int64)  # type: ignore[no-any-return]
