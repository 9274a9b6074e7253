"""Readers of result files, some rows at a time, and comparison of their columns."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv

from virnucpro_pl.errors import escaped
from virnucpro_pl.files.file_names import open_arrow

_BLOCK_BYTES = 1 << 22
_MAX_ROWS = 1 << 16
SHOWN_LETTERS = 60
"""Letters of a value that a message shows"""


class DisagreementError(Exception):
    """A result file cannot be read or contradicts another one.

    Args:
        file: name of the wrong file.
        message: the difference, with its row.
    """

    def __init__(self, file: str, message: str):
        super().__init__(message)
        self.file = file


def text_rows(path: Path, columns: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    """Yield columns of a tab-separated result file, a few megabytes at a time."""
    return _explained(path.name, _text_rows(path, columns))


def _text_rows(path: Path, columns: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    for batch in csv.open_csv(
        open_arrow(path),
        csv.ReadOptions(block_size=_BLOCK_BYTES),
        csv.ParseOptions(delimiter="\t", quote_char=False),
        csv.ConvertOptions(include_columns=[*columns], column_types=columns, strings_can_be_null=False),
    ):
        yield pa.Table.from_batches([batch])


def parquet_rows(path: Path, columns: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    """Yield columns of a Parquet file, some rows at a time."""
    return _explained(path.name, _parquet_rows(path, columns))


def _parquet_rows(path: Path, columns: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    with open_arrow(path) as opened, pq.ParquetFile(opened) as file:
        for batch in file.iter_batches(_MAX_ROWS):
            yield pa.Table.from_batches([batch]).select([*columns]).cast(pa.schema(columns))


def _explained(file: str, pieces: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the pieces; raise ``DisagreementError`` if they cannot be read."""
    try:
        for piece in pieces:
            for name, column in zip(piece.column_names, piece.columns, strict=True):
                if column.null_count and pa.types.is_integer(column.type):
                    raise ValueError(f"column {name} lacks a number")
            yield piece
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DisagreementError(file, f"cannot be read ({escaped(' '.join(str(error).split()))})") from error


class Rows:
    """Reader of the rows of a table, in order.

    Args:
        file: name of the table in messages.
        pieces: the table in consecutive pieces.
        columns: its columns.
    """

    def __init__(self, file: str, pieces: Iterator[pa.Table], columns: Mapping[str, pa.DataType]):
        self.row = 0
        """Number of rows that have been read"""
        self._file = file
        self._pieces = pieces
        self._rest = pa.schema(columns).empty_table()

    def read(self, num_rows: int) -> pa.Table:
        """Return the next rows.

        Raises:
            DisagreementError: the table has fewer rows.
        """
        pieces = [self._rest]
        while (found := sum(map(len, pieces))) < num_rows:
            piece = next(self._pieces, None)
            if piece is None:
                raise DisagreementError(self._file, f"has {self.row + found:,} rows, fewer than the other files need")
            pieces.append(piece)
        table = pa.concat_tables(pieces)
        self._rest = table.slice(num_rows)
        self.row += num_rows
        return table.slice(0, num_rows).combine_chunks()

    def check_end(self) -> None:
        """Raise DisagreementError unless all rows have been read."""
        if len(self._rest) or any(map(len, self._pieces)):
            raise DisagreementError(self._file, f"has more than the {self.row:,} rows that the other files need")


class Comparison:
    """Comparison of the columns of some rows with expected values.

    Args:
        file: name of the table in messages.
        first_row: number of the first row, from 0.
        table: the rows.
    """

    def __init__(self, file: str, first_row: int, table: pa.Table):
        self._file = file
        self._first_row = first_row
        self._table = table

    def check(self, column: str, expected: pa.Array | NDArray[Any] | list[Any], source: str) -> None:
        """Compare a column; null and NaN are equal.

        Args:
            column: name of the column.
            expected: expected values, one for each row.
            source: origin of the expected values, for the message.

        Raises:
            DisagreementError: a value differs.
        """
        found = self._table.column(column).combine_chunks()
        wanted = expected if isinstance(expected, pa.Array) else pa.array(expected, found.type)
        both_null = pc.and_(pc.is_null(found, nan_is_null=True), pc.is_null(wanted, nan_is_null=True))
        row = pc.index(pc.or_(pc.fill_null(pc.equal(found, wanted), False), both_null), False).as_py()
        if row >= 0:
            here, there = (escaped(str(values[row].as_py()))[:SHOWN_LETTERS] for values in (found, wanted))
            raise DisagreementError(
                self._file, f"row {self._first_row + row + 1:,}: {column} is {here}, but {there} by {source}"
            )


def floats(table: pa.Table, column: str) -> NDArray[np.float32]:
    """Return a column of numbers, with NaN for null."""
    return table.column(column).to_numpy().astype(np.float32)  # type: ignore[no-any-return]
