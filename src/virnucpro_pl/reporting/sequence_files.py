"""Writers of the input sequences by call: FASTA files beside ``viral.fasta``, and FASTQ files with qualities."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from xopen import xopen

from virnucpro_pl.errors import UserError
from virnucpro_pl.files.durable import replacing
from virnucpro_pl.files.output_files import KINDS, NONVIRAL, RECORD_TABLE, UNCALLED
from virnucpro_pl.reporting.gathering import CALLS, record_batches
from virnucpro_pl.runs.record_types import InputFile
from virnucpro_pl.sequence.layout import TableReader
from virnucpro_pl.sequence.mates import FIRST, INTERLEAVED
from virnucpro_pl.sequence.records import InputFacts, read_fastq_entries, read_records
from virnucpro_pl.sequence.streams import can_be_read_again, shown_name

_VIRAL, _NONVIRAL, _UNCALLED = range(3)
_FASTA_WIDTH = 60
_LEVEL = 4  # compression level: hardly larger than 6, and twice as fast


class StoredRecord(NamedTuple):
    """Record of the input."""

    description: str
    """whole header"""
    letters: memoryview
    """sequence as in the file"""


def kinds_of_records(folder: Path) -> NDArray[np.uint8]:
    """Return the kind of each record, (records,): viral, other call, not called."""
    kinds = []
    for batch in record_batches(folder / RECORD_TABLE):
        is_viral = pc.equal(batch["call"], "virus").to_numpy()
        uncalled = pc.equal(batch["call"], CALLS[-1]).to_numpy()
        kinds.append(np.select([is_viral, uncalled], [_VIRAL, _UNCALLED], _NONVIRAL).astype(np.uint8))
    return np.concatenate(kinds) if kinds else np.zeros(0, dtype=np.uint8)


def records_of_store(store: Path) -> Iterator[StoredRecord]:
    """Yield the records of an ORF store, in input order."""
    for batch in TableReader(store / "records.arrow", "description", "sequence").batches():
        for description, sequence in zip(batch["description"], batch["sequence"], strict=True):
            yield StoredRecord(description.as_py(), memoryview(sequence.as_buffer()))


def records_of_inputs(inputs: list[str], sources: list[InputFile]) -> Iterator[StoredRecord]:
    """Yield the records of input files, which are read again.

    Args:
        inputs: paths of the files.
        sources: their entries in the run record.

    Raises:
        UserError: a file cannot be read again, or was changed.
    """
    for path, source in zip(inputs, sources, strict=True):
        if not can_be_read_again(path):
            raise UserError(
                f"formats.nonviral=true of a finished run reads the input again, and {shown_name(path)} is no regular"
                " file; give the file, or overwrite=true"
            )
        facts = InputFacts()
        for block in read_records(path, facts):
            letters, start = memoryview(block.letters), 0
            for description, length in zip(block.descriptions, block.lengths.tolist(), strict=True):
                yield StoredRecord(description, letters[start : start + length])
                start += length
        if facts.digest.hexdigest() != source["sha256"]:
            raise UserError(f"{path}: was changed since it was read; restore the file")


def write_nonviral(folder: Path, records: Iterable[StoredRecord]) -> list[str]:
    """Write ``nonviral.fasta``, records with another call than viral, and ``uncalled.fasta``, those not called.

    Together with ``viral.fasta`` they hold every record of the input once, with its name in the tables.

    Args:
        folder: output folder of a finished run.
        records: all records of the input.
    """
    rows = zip(kinds_of_records(folder).tolist(), _names_of_records(folder), strict=True)
    with ExitStack() as stack:
        files = {
            kind: stack.enter_context(_text(stack.enter_context(replacing(folder / name))))
            for kind, name in ((_NONVIRAL, NONVIRAL), (_UNCALLED, UNCALLED))
        }
        for description, letters in records:
            kind, name = next(rows, (_VIRAL, ""))  # the file has grown; its digest shows that at the end
            if kind in files:
                comment = description.split(None, 1)[1:]
                files[kind].write(f">{' '.join([name, *comment])}\n")
                files[kind].writelines(
                    f"{str(letters[place : place + _FASTA_WIDTH], 'ascii')}\n"
                    for place in range(0, len(letters), _FASTA_WIDTH)
                )
    return [NONVIRAL, UNCALLED]


def _text(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", newline="\n")


def _names_of_records(folder: Path) -> Iterator[str]:
    for batch in record_batches(folder / RECORD_TABLE):
        yield from batch["sequence_id"].to_pylist()


class _Unit(NamedTuple):
    """Files that are split together: one file, or the two files of mates."""

    paths: list[str]
    digests: list[str]
    """SHA-256 of each file"""
    first_records: list[int]
    """number of the first record of each file, from 0"""
    num_records: int
    """number of records of each file"""
    step: int
    """2 for an interleaved file, otherwise 1"""


def write_fastq(folder: Path, inputs: list[str], sources: list[InputFile]) -> list[str]:
    """Write the reads of FASTQ files unchanged, with their qualities: ``viral.fastq.gz`` and so on.

    Mates stay together: a pair is viral if one of its reads is, and uncalled only if both are. Mates of two files go to
    two files, ``viral_1.fastq.gz`` and ``viral_2.fastq.gz``.

    Args:
        folder: output folder of a finished run.
        inputs: paths of the input files.
        sources: their entries in the run record.

    Returns:
        The names of the files.

    Raises:
        UserError: a file was changed since it was read; nothing is written.
    """
    kinds = kinds_of_records(folder)
    units = list(_units(inputs, sources))
    written = []
    with ExitStack() as stack:
        targets: dict[str, IO[bytes]] = {}
        for endings in sorted({_endings(unit) for unit in units}):
            for name in (f"{kind}{ending}.fastq.gz" for kind in KINDS for ending in endings):
                unfinished = stack.enter_context(replacing(folder / name))
                targets[name] = stack.enter_context(
                    xopen(unfinished, "wb", compresslevel=_LEVEL, threads=0, format="gz")
                )
                written.append(name)
        for unit in units:
            of_pairs = _kinds_of_pairs(kinds, unit)
            for path, digest, ending in zip(unit.paths, unit.digests, _endings(unit), strict=True):
                for number, entry in enumerate(read_fastq_entries(path, digest)):
                    if number < unit.num_records:  # otherwise the file has grown; its digest shows that at the end
                        kind = KINDS[of_pairs[number // unit.step]]
                        targets[f"{kind}{ending}.fastq.gz"].write(entry.fastq_bytes())
    return written


def reads_of_files(
    folder: Path, inputs: list[str], sources: list[InputFile]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the name of each file of ``write_fastq`` and which records it holds, (records,)."""
    kinds = kinds_of_records(folder)
    members: dict[str, NDArray[np.bool_]] = {}
    for unit in _units(inputs, sources):
        of_reads = np.repeat(_kinds_of_pairs(kinds, unit), unit.step)
        for first, ending in zip(unit.first_records, _endings(unit), strict=True):
            for number, kind in enumerate(KINDS):
                chosen = members.setdefault(f"{kind}{ending}.fastq.gz", np.zeros(len(kinds), dtype=np.bool_))
                chosen[first : first + unit.num_records] = of_reads == number
    yield from members.items()


def _endings(unit: _Unit) -> tuple[str, ...]:
    return ("_1", "_2") if len(unit.paths) == 2 else ("",)


def _units(inputs: list[str], sources: list[InputFile]) -> Iterator[_Unit]:
    """Yield the FASTQ files; of mates in two files, the file of the first reads comes first."""
    first = 0
    waiting: tuple[str, str, int, str] | None = None
    for path, source in zip(inputs, sources, strict=True):
        number, role, digest = source["records"], source["mates"], source["sha256"]
        if source["format"] == "fastq":
            if role in (None, INTERLEAVED):
                yield _Unit([path], [digest], [first], number, 2 if role == INTERLEAVED else 1)
            elif waiting is None:
                waiting = path, digest, first, role
            else:
                pair = [waiting[:3], (path, digest, first)]
                paths, digests, firsts = zip(*(pair if waiting[3] == FIRST else pair[::-1]), strict=True)
                yield _Unit([*paths], [*digests], [*firsts], number, 1)
                waiting = None
        first += number


def _kinds_of_pairs(kinds: NDArray[np.uint8], unit: _Unit) -> list[int]:
    """Return the kind of each pair: the smaller one of its reads, in the order viral, nonviral, uncalled."""
    columns = [kinds[first : first + unit.num_records] for first in unit.first_records]
    if unit.step == 2:
        columns = [columns[0][::2], columns[0][1::2]]
    return np.minimum.reduce(columns).tolist()  # type: ignore[no-any-return]
