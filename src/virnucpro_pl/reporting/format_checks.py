"""Check of the files under ``formats`` against the tables, row by row."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import dnaio
import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.output_files import BED, KRAKEN, NONVIRAL, RECORD_TABLE, RUN_FILE, UNCALLED
from virnucpro_pl.reporting.downstream_tables import bed_rows, kraken_rows, multiqc_sections
from virnucpro_pl.reporting.gathering import record_batches
from virnucpro_pl.reporting.sequence_files import reads_of_files
from virnucpro_pl.results.row_streams import DisagreementError
from virnucpro_pl.results.sequence_check import compare_sequences, records_called, sequences_of
from virnucpro_pl.runs.record_types import RunRecord
from virnucpro_pl.sequence.decompressed import open_decompressed


def format_disagreements(folder: Path, run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield each file under ``formats`` that contradicts the tables, with the first difference.

    Args:
        folder: output folder; its tables must agree with each other.
        run: its checked run record.
    """
    for check in _checks(folder, run):
        try:
            check()
        except DisagreementError as found:
            yield found.file, str(found)


def _checks(folder: Path, run: RunRecord) -> Iterator[Callable[[], None]]:
    formats = run["formats"]
    if "nonviral" in formats:
        for name, calls in ((NONVIRAL, ("others", "ambiguous")), (UNCALLED, ("NA",))):
            yield partial(compare_sequences, name, sequences_of(folder / name), records_called(folder, calls))
    if "fastq" in formats:
        yield partial(_check_reads, folder, run)
    if "kraken" in formats:
        yield partial(_compare_lines, folder / KRAKEN, kraken_rows(folder))
    if "bed" in formats:
        yield partial(_compare_lines, folder / BED, bed_rows(folder))
    if "multiqc" in formats:
        for name, section in multiqc_sections(run).items():
            yield partial(_compare_section, folder / name, section)


def _check_reads(folder: Path, run: RunRecord) -> None:
    """Compare the reads in all FASTQ files with the records of the same call."""
    sources = run["counts"]["inputs"]
    try:
        chosen = dict(reads_of_files(folder, [source["path"] for source in sources], sources))
    except ValueError as error:
        raise DisagreementError(RUN_FILE, "counts.inputs: mates and records contradict each other") from error
    if sorted(chosen) != sorted(run["formats"]["fastq"]):
        raise DisagreementError(RUN_FILE, "formats.fastq: the files contradict the mates of counts.inputs")
    added = re.compile(rf"(/[12])?({re.escape(run['counts']['duplicate_suffix'])}[0-9]+)?")
    for name, is_in in chosen.items():
        compare_sequences(
            name,
            _reads_in(folder / name),
            _records_among(folder, is_in),
            # An id is the name of a read, perhaps with the number of the mate or of the repetition.
            lambda record, read: record.startswith(read) and bool(added.fullmatch(record, len(read))),
        )


def _reads_in(path: Path) -> Iterator[tuple[str, int]]:
    try:
        with open_decompressed(path) as stream:
            for entry in dnaio.FastqReader(stream):
                yield (entry.name.split(None, 1) or ("",))[0], len(entry.sequence)
    except (dnaio.FileFormatError, UserError, OSError) as error:
        raise DisagreementError(path.name, f"cannot be read ({escaped(str(error))})") from error


def _records_among(folder: Path, is_in: NDArray[np.bool_]) -> Iterator[tuple[str, int]]:
    first = 0
    for batch in record_batches(folder / RECORD_TABLE):
        chosen = batch.filter(is_in[first : first + len(batch)])
        yield from zip(chosen["sequence_id"].to_pylist(), chosen["length"].to_pylist(), strict=True)
        first += len(batch)


def _compare_lines(path: Path, expected: Iterable[str]) -> None:
    with path.open("rb") as lines:
        for number, (line, wanted) in enumerate(zip_longest(lines, expected), start=1):
            if line is None or wanted is None or line != wanted.encode():
                raise DisagreementError(path.name, f"line {number:,} does not follow from the tables")


def _compare_section(path: Path, section: Mapping[str, Any]) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DisagreementError(path.name, f"cannot be read ({error})") from error
    if found != section:
        raise DisagreementError(path.name, f"its content does not follow from {RUN_FILE}")
