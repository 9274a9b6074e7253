"""Check of the consensus table, which is sorted by id, against the chunks, which have the order of the input."""

from itertools import pairwise
from pathlib import Path
from typing import Any

from virnucpro_pl.results.columns import CONSENSUS_COLUMNS
from virnucpro_pl.results.row_streams import DisagreementError, text_rows

_COLUMNS = {column.name: column.type for column in CONSENSUS_COLUMNS}


def check_consensus(path: Path, expected: int) -> None:
    """Compare the rows of the consensus table with the expected ones.

    Args:
        path: the table.
        expected: sum of the hashes of the expected rows.

    Raises:
        DisagreementError: the rows differ, or are not in order.
    """
    found, last = 0, ""
    for table in text_rows(path, _COLUMNS):
        columns = [table.column(name).to_pylist() for name in _COLUMNS]
        ids = columns[0]
        if any(first >= second for first, second in pairwise([last, *ids])):
            raise DisagreementError(path.name, "the rows are not sorted by id")
        found, last = found + hash_of_rows(*columns), ids[-1] if ids else last
    if found != expected:
        raise DisagreementError(path.name, "the rows differ from the chunks in predictions.parquet")


def hash_of_rows(*columns: Any) -> int:
    """Return a hash of rows that does not depend on their order, valid within one process."""
    return sum(map(hash, zip(*columns, strict=True)))
