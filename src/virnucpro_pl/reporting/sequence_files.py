"""The sequences of the input, told apart by their calls: what ``viral.fasta`` leaves out, and reads with qualities."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from xopen import xopen

from virnucpro_pl.durable import replacing
from virnucpro_pl.reporting.gathering import CALLS, record_batches
from virnucpro_pl.results.tables import RECORD_TABLE
from virnucpro_pl.sequence.mates import FIRST, INTERLEAVED
from virnucpro_pl.sequence.records import read_fastq_entries, read_records

NONVIRAL, UNCALLED = "nonviral.fasta", "uncalled.fasta"
KINDS = ("viral", "nonviral", "uncalled")
_VIRAL, _NONVIRAL, _UNCALLED = range(3)
_FASTA_WIDTH = 60
_LEVEL = 4  # of compression: hardly larger than at 6, and twice as fast


def kinds_of_records(folder: Path) -> NDArray[np.uint8]:
    """(records,) number of each record's kind: viral, called otherwise, not called."""
    kinds = []
    for batch in record_batches(folder / RECORD_TABLE):
        is_viral = pc.equal(batch["call"], "virus").to_numpy()
        uncalled = pc.equal(batch["call"], CALLS[-1]).to_numpy()
        kinds.append(np.select([is_viral, uncalled], [_VIRAL, _UNCALLED], _NONVIRAL).astype(np.uint8))
    return np.concatenate(kinds) if kinds else np.zeros(0, dtype=np.uint8)


def write_nonviral(folder: Path, inputs: list[str]) -> list[str]:
    """Write ``nonviral.fasta``, records called otherwise than viral, and ``uncalled.fasta``, those without call.

    With ``viral.fasta`` they hold every record of the input once, under the name that the tables give it.

    Args:
        folder: the output folder of a finished run.
        inputs: the files it read.
    """
    names = _names_of_records(folder)
    with ExitStack() as stack:
        files = {
            kind: stack.enter_context(_text(stack.enter_context(replacing(folder / name))))
            for kind, name in ((_NONVIRAL, NONVIRAL), (_UNCALLED, UNCALLED))
        }
        kinds = iter(kinds_of_records(folder).tolist())
        for path in inputs:
            for block in read_records(path):
                start = 0
                for description, length in zip(block.descriptions, block.lengths.tolist(), strict=True):
                    kind, name = next(kinds), next(names)
                    if kind in files:
                        comment = description.split(None, 1)[1:]
                        files[kind].write(f">{' '.join([name, *comment])}\n")
                        letters = block.letters[start : start + length].decode("ascii")
                        files[kind].writelines(
                            letters[place : place + _FASTA_WIDTH] + "\n" for place in range(0, length, _FASTA_WIDTH)
                        )
                    start += length
    return [NONVIRAL, UNCALLED]


def _text(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", newline="\n")


def _names_of_records(folder: Path) -> Iterator[str]:
    for batch in record_batches(folder / RECORD_TABLE):
        yield from batch["sequence_id"].to_pylist()


class _Unit(NamedTuple):
    """Files that are split together: one, or those of both mates."""

    paths: list[str]
    first_records: list[int]
    """number of the first record of each, from 0"""
    num_records: int
    """of each"""
    step: int
    """reads of a pair that follow each other in one file"""


def write_fastq(folder: Path, inputs: list[str], sources: list[dict[str, Any]]) -> list[str]:
    """Write reads of FASTQ files as they came, with their qualities: ``viral.fastq.gz`` and so on.

    Mates stay together: a pair is viral if one of its reads is, and uncalled only if both are. Mates of two files go to
    two files, ``viral_1.fastq.gz`` and ``viral_2.fastq.gz``.

    Args:
        folder: the output folder of a finished run.
        inputs: the files it read.
        sources: what ``run.json`` tells of each.

    Returns:
        names of the files.
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
            for path, ending in zip(unit.paths, _endings(unit), strict=True):
                for number, entry in enumerate(read_fastq_entries(path)):
                    kind = KINDS[of_pairs[number // unit.step]]
                    targets[f"{kind}{ending}.fastq.gz"].write(entry.fastq_bytes())
    return written


def reads_of_files(
    folder: Path, inputs: list[str], sources: list[dict[str, Any]]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the names of the files that ``write_fastq`` writes, each with (records,) which records are in it."""
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


def _units(inputs: list[str], sources: list[dict[str, Any]]) -> Iterator[_Unit]:
    """Yield what is FASTQ; of mates in two files the file of the first reads comes first."""
    first = 0
    waiting: tuple[str, int, str] | None = None
    for path, source in zip(inputs, sources, strict=True):
        number, role = source["records"], source["mates"]
        if source["format"] == "fastq":
            if role in (None, INTERLEAVED):
                yield _Unit([path], [first], number, 2 if role == INTERLEAVED else 1)
            elif waiting is None:
                waiting = path, first, role
            else:
                pair = [(waiting[0], waiting[1]), (path, first)]
                paths, firsts = zip(*(pair if waiting[2] == FIRST else pair[::-1]), strict=True)
                yield _Unit([*paths], [*firsts], number, 1)
                waiting = None
        first += number


def _kinds_of_pairs(kinds: NDArray[np.uint8], unit: _Unit) -> list[int]:
    """Kind of each pair: the smaller number of its reads, as viral comes before nonviral, and that before uncalled."""
    columns = [kinds[first : first + unit.num_records] for first in unit.first_records]
    if unit.step == 2:
        columns = [columns[0][::2], columns[0][1::2]]
    return np.minimum.reduce(columns).tolist()  # type: ignore[no-any-return]
