"""Builder of an ORF store, block by block."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.host.memory import keep_freed_memory
from virnucpro_pl.host.read_ahead import read_ahead
from virnucpro_pl.host.stage_clock import CHUNKING, PLANNING, TRANSLATION, StageClock
from virnucpro_pl.sequence.alphabet import are_no_nucleotides
from virnucpro_pl.sequence.chunks import Chunks, cut_records
from virnucpro_pl.sequence.duplicates import DuplicateFinder, number_repeats
from virnucpro_pl.sequence.layout import (
    CHUNKS,
    FORMAT_VERSION,
    ORFS,
    RECORDS,
    STATUSES,
    StoreSettings,
    TableReader,
    TableWriter,
    binary_column,
    text_column,
)
from virnucpro_pl.sequence.mates import PairEvidence, assign_mates, final_names
from virnucpro_pl.sequence.records import BLOCK_BYTES, InputFacts, RecordBlock, read_records
from virnucpro_pl.sequence.seal import seal
from virnucpro_pl.sequence.stored_array import StoredArray
from virnucpro_pl.sequence.streams import shown_name
from virnucpro_pl.sequence.translation import WHOLE_CHUNK, add_whole_chunks, find_orfs, select_orfs

_CALLED, _DNA_ONLY, _NO_ORF, _AMBIGUOUS_ONLY, _NOT_NUCLEOTIDES, _TOO_SHORT, _EMPTY = range(len(STATUSES))


class StoreBuilder:
    """Builder of the files of a store in an empty folder."""

    def __init__(self, folder: Path, settings: StoreSettings, clock: StageClock):
        self._folder = folder
        self._settings = settings
        self._clock = clock
        self._records = TableWriter(folder / "records.arrow", RECORDS)
        self._chunks = TableWriter(folder / "chunks.arrow", CHUNKS)
        self._orfs = TableWriter(folder / "orfs.arrow", ORFS)
        self._duplicate_names = DuplicateFinder(folder)
        self._duplicate_orfs = DuplicateFinder(folder)
        self._suffix = FreeSuffix()
        self._num_bases = 0
        self._formula_names = 0
        self._num_whole = 0
        self._chunks_with_orf = 0
        self._record_status = np.zeros(len(STATUSES), dtype=np.int64)
        self._chunk_status = np.zeros(len(STATUSES), dtype=np.int64)

    def build(self, inputs: list[str]) -> list[str]:
        """Stream the inputs into the store; return their SHA-256 digests."""
        keep_freed_memory()
        sources: list[dict[str, Any]] = []
        pairs: list[tuple[str, PairEvidence | None]] = []
        for path in inputs:
            before, facts, evidence = self._records.num_rows, InputFacts(), PairEvidence()
            blocks = read_ahead(read_records(path, facts), depth=1)
            while block := self._read_next(blocks):
                if facts.format == "fastq":
                    evidence.add(block.names, block.descriptions)
                self.append(block)
            if self._settings.alphabet == "iupac":
                facts.letters.check(shown_name(path), ", or data.alphabet=any to call any letters as published")
            pairs.append((facts.digest.hexdigest(), evidence if facts.format == "fastq" else None))
            orphan = {"orphan": evidence.orphan} if evidence.orphan else {}
            records = self._records.num_rows - before
            sources.append({"path": path, **facts.as_dict(), **orphan, "records": records})
        for source, role in zip(sources, assign_mates(pairs), strict=True):
            source["mates"] = role
        self.finish(sources)
        return [source["sha256"] for source in sources]

    def _read_next(self, blocks: Iterator[RecordBlock]) -> RecordBlock | None:
        with self._clock(CHUNKING):
            return next(blocks, None)

    def append(self, records: RecordBlock, frames: NDArray[np.uint8] | None = None) -> None:
        """Cut and translate records, and append them, their chunks and their ORFs.

        Args:
            records: the next records.
            frames: (R,) bits of the frames to keep, for records that are one chunk each; None: all frames.
        """
        with self._clock(CHUNKING):
            chunks = cut_records(records.lengths, self._settings.chunk_length, self._settings.chunking)
        groups = self._groups(records, chunks)
        excluded = np.zeros(len(records.lengths), dtype=np.bool_)
        if records.odd is not None and self._settings.alphabet == "iupac":
            excluded = are_no_nucleotides(records.odd, records.lengths)
        status = np.concatenate(
            [np.empty(0, dtype=np.uint8), *(self._append_chunks(*group, frames, excluded) for group in groups)]
        )
        num_chunks = np.bincount(chunks.record, minlength=len(records.lengths))
        record_status = np.full(len(num_chunks), _EMPTY, dtype=np.uint8)
        if len(status):
            record_status[num_chunks > 0] = np.minimum.reduceat(status, np.flatnonzero(chunks.number == 1))
        with self._clock(PLANNING):
            sequences = binary_column(records.letters, records.lengths)
            names, descriptions = text_column(records.names), text_column(records.descriptions)
            self._records.append(names, descriptions, sequences, num_chunks, record_status)
            self._duplicate_names.add(records.names)
            self._suffix.avoid(records.names)
            self._formula_names += count_formulas(records.names)
        self._num_bases += len(records.letters)
        self._record_status += np.bincount(record_status, minlength=len(STATUSES))

    def _groups(self, records: RecordBlock, chunks: Chunks) -> Iterator[tuple[Chunks, bytes]]:
        """Yield the chunks of the records with their letters, about 1 MiB at a time."""
        offset = (np.cumsum(records.lengths) - records.lengths)[chunks.record]
        sizes = np.cumsum(chunks.end - chunks.start)
        borders = np.searchsorted(sizes, np.arange(0, sizes[-1] if len(sizes) else 0, BLOCK_BYTES), side="right")
        for first, after in pairwise([*np.unique(borders), len(sizes)]):  # a chunk may span several borders
            with self._clock(CHUNKING):
                group = Chunks(*(column[first:after] for column in chunks))
                starts, ends = offset[first:after] + group.start, offset[first:after] + group.end
                if np.array_equal(starts[1:], ends[:-1]):  # reads, one chunk each
                    letters = records.letters[starts[0] : ends[-1]]
                else:
                    slices = zip(starts.tolist(), ends.tolist(), strict=True)
                    letters = b"".join([records.letters[a:b] for a, b in slices])
                group = group._replace(record=self._records.num_rows + group.record)
            yield group, letters

    def _append_chunks(
        self, chunks: Chunks, letters: bytes, frames: NDArray[np.uint8] | None, excluded: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """Translate chunks, append them and their ORFs, and return their statuses; ``excluded`` (R,) are not called."""
        lengths = chunks.end - chunks.start
        with self._clock(TRANSLATION):
            orfs = find_orfs(letters, lengths, self._settings.ambiguity)
            whole = np.zeros(len(lengths), dtype=np.bool_)
            if frames is not None:
                of_chunk = frames[chunks.record - self._records.num_rows]
                orfs = select_orfs(orfs, of_chunk[orfs.chunk] >> orfs.frame & 1 == 1)
                whole = of_chunk >> WHOLE_CHUNK & 1 == 1
            counts = np.bincount(orfs.chunk, minlength=len(lengths))
            if self._settings.whole_chunks:
                whole = (counts == 0) & orfs.stopped
            is_excluded = excluded[chunks.record - self._records.num_rows]
            whole &= ~is_excluded
            self._chunks_with_orf += int(np.count_nonzero(counts))
            status = np.select(
                [is_excluded, counts > 0, whole, orfs.stopped, lengths < 3],
                [_NOT_NUCLEOTIDES, _CALLED, _DNA_ONLY, _NO_ORF, _TOO_SHORT],
                _AMBIGUOUS_ONLY,
            ).astype(np.uint8)
            orfs = add_whole_chunks(orfs, whole, letters, lengths)
            counts = counts + whole
            self._num_whole += int(np.count_nonzero(whole))
        with self._clock(PLANNING):
            self._orfs.append(
                chunks.record[orfs.chunk],
                self._chunks.num_rows + orfs.chunk,
                orfs.frame,
                binary_column(b"".join(orfs.nucleotides), orfs.num_bases),
                binary_column(b"".join(orfs.proteins), orfs.num_residues),
            )
            self._chunks.append(*chunks, counts.astype(np.uint8), status)
            self._duplicate_orfs.add(orfs.proteins, orfs.nucleotides)
        self._chunk_status += np.bincount(status, minlength=len(STATUSES))
        return status

    def finish(self, sources: list[dict[str, Any]]) -> None:
        """Complete the store.

        Args:
            sources: ``path``, ``sha256``, ``records`` and ``mates`` of each input, in order.
        """
        with self._clock(PLANNING):
            self._finish(sources)

    def _finish(self, sources: list[dict[str, Any]]) -> None:
        for table in (self._records, self._chunks, self._orfs):
            table.close()
        duplicate_names = self._save_repeated_names(sources, self._folder / "duplicate_names.npy")
        arrays = (self._folder / name for name in ("duplicate_orfs.npy", "duplicate_proteins.npy"))
        duplicate_orfs = self._duplicate_orfs.save(*arrays)
        manifest = {
            "format_version": FORMAT_VERSION,
            "settings": self._settings._asdict(),
            "inputs": sources,
            "records": self._records.num_rows,
            "bases": self._num_bases,
            "chunks": self._chunks.num_rows,
            "chunks_with_orf": self._chunks_with_orf,
            "orfs": self._orfs.num_rows - self._num_whole,
            "whole_chunks": self._num_whole,
            "unique_orfs": self._orfs.num_rows - self._num_whole - duplicate_orfs,
            "duplicate_names": duplicate_names,
            "duplicate_suffix": str(self._suffix),
            "formula_names": self._formula_names,
            "record_status": dict(zip(STATUSES, self._record_status.tolist(), strict=True)),
            "chunk_status": dict(zip(STATUSES[:_EMPTY], self._chunk_status.tolist(), strict=False)),
        }
        tables = {"records.arrow": self._records, "chunks.arrow": self._chunks, "orfs.arrow": self._orfs}
        seal(self._folder, manifest, {name: table.sha256() for name, table in tables.items()})

    def _save_repeated_names(self, sources: list[dict[str, Any]], path: Path) -> int:
        """Save and count the records that repeat an earlier name.

        Mates, which are recognised at the end of the input, have distinct names.
        """
        names = self._duplicate_names
        if any(source["mates"] for source in sources):
            first_record, names = 0, DuplicateFinder(self._folder)
            for batch in TableReader(self._folder / "records.arrow", "name").batches():
                names.add(final_names(sources, first_record, batch.column("name").to_pylist()))
                first_record += len(batch)
        repeats = path.with_name("repeats.npy")
        found = names.save(repeats)
        number_repeats(StoredArray(repeats), self._folder, path)
        repeats.unlink()
        return found


def count_formulas(names: list[str]) -> int:
    """Return the number of names that a spreadsheet would interpret as formulas.

    >>> count_formulas(["=1+1", "a=b", "-x", "@y", "+z"])
    4
    """
    text = "\n".join(["", *names])
    return sum(text.count(f"\n{sign}") for sign in "=+-@")


class FreeSuffix:
    """First suffix of ``_dup``, ``__dup``, … that no name has before a final number."""

    def __init__(self) -> None:
        self._suffix = "_dup"

    def avoid(self, names: list[str]) -> None:
        """Exclude the suffixes of names."""
        text = "\n".join(names)
        while self._suffix in text and re.search(f"{self._suffix}[0-9]+$", text, re.MULTILINE):
            self._suffix = f"_{self._suffix}"

    def __str__(self) -> str:
        return self._suffix
