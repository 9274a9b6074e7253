"""The consensus table, which is sorted by id, compared with the chunks, which are in the order of the input."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from virnucpro_pl.results.row_streams import DisagreementError, text_rows

_COLUMNS = {
    "Modified_ID": pa.string(),
    "Is_Virus": pa.string(),
    "max_score_0": pa.float32(),
    "max_score_1": pa.float32(),
}


def check_consensus(path: Path, expected: int) -> None:
    """Compare the rows of the consensus table with those that it should have.

    Args:
        path: the table.
        expected: sum of the hashes of those rows.

    Raises:
        DisagreementError: the rows are others, or not in order.
    """
    found, last = 0, ""
    for table in text_rows(path, _COLUMNS):
        columns = [table.column(name).to_pylist() for name in _COLUMNS]
        ids = columns[0]
        if any(first >= second for first, second in pairwise([last, *ids])):
            raise DisagreementError(path.name, "its rows are not in the order of their ids")
        found, last = found + hash_of_rows(*columns), ids[-1] if ids else last
    if found != expected:
        raise DisagreementError(path.name, "its rows are not those of the chunks in predictions.parquet")


def hash_of_rows(*columns: Any) -> int:
    """Return a number that is the same for the same rows in any order, within one process."""
    return sum(map(hash, zip(*columns, strict=True)))
