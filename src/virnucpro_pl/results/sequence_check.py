"""Check of the sequences in result files against the records."""

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from operator import eq
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.output_files import RECORD_TABLE
from virnucpro_pl.results.row_streams import SHOWN_LETTERS, DisagreementError, text_rows
from virnucpro_pl.sequence.records import read_records

_COLUMNS = {"sequence_id": pa.string(), "length": pa.int64(), "call": pa.string()}


def records_called(folder: Path, calls: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield the id and length of each record with one of the calls."""
    for table in text_rows(folder / RECORD_TABLE, _COLUMNS):
        called = table.filter(pc.is_in(table.column("call"), pa.array(calls)))
        yield from zip(called.column("sequence_id").to_pylist(), called.column("length").to_pylist(), strict=True)


def sequences_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the name and length of each sequence of a FASTA file.

    Raises:
        DisagreementError: the file cannot be read.
    """
    try:
        for block in read_records(str(path)):
            yield from zip(block.names, block.lengths.tolist(), strict=True)
    except (UserError, OSError) as error:
        raise DisagreementError(path.name, f"cannot be read ({escaped(str(error))})") from error


def compare_sequences(
    file: str,
    found: Iterable[tuple[str, int]],
    expected: Iterable[tuple[str, int]],
    same_name: Callable[[str, str], bool] = eq,
) -> None:
    """Compare names and lengths of the sequences in a file with the expected records.

    Args:
        file: name of the file in messages.
        found: name and length of each sequence.
        expected: id and length of each record.
        same_name: returns whether an id and a name match.

    Raises:
        DisagreementError: a sequence differs, is missing or was added.
    """
    for number, (one, record) in enumerate(zip_longest(found, expected), start=1):
        if one is None or record is None or one[1] != record[1] or not same_name(record[0], one[0]):
            here, there = ("nothing" if each is None else _shown(*each) for each in (one, record))
            raise DisagreementError(file, f"sequence {number:,} is {here}, but {there} by sequences.tsv")


def _shown(name: str, length: int) -> str:
    return f"'{escaped(name)[:SHOWN_LETTERS]}' of {length:,} bases"
