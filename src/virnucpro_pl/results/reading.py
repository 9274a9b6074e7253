"""Reading the tables of a run back, each id to the letter."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from virnucpro_pl.files.file_names import open_arrow

_BLOCK_BYTES = 1 << 23  # more than the longest row, as an id may have 1 MiB
_TEXT = {"sequence_id", "call", "status", "out_of_domain", "file", "Sequence_ID", "Prediction"}
_WHOLE = {"record", "length", "chunks", "called_chunks", "viral_chunks", "orfs", "viral_orfs", "dna_only_chunks"}
_MAY_BE_MISSING = {"call", "out_of_domain"}
"""Texts that are null where the table says NA; in all others, such as ids, NA is a word like any other"""


def read_result_table(path: Path) -> pa.Table:
    """Read ``sequences.tsv``, ``prediction_results.txt`` or ``predictions.parquet``.

    Scores and calls are null where the table has ``NA``.

    Raises:
        OSError: it cannot be read.
        pyarrow.ArrowException: it is no such table.
    """
    with open_arrow(path) as stream:
        if path.suffix == ".parquet":
            return pq.read_table(stream)
        with path.open(encoding="utf-8", newline="\n") as lines:
            names = lines.readline().rstrip("\n").split("\t")
        types = {name: _kind(name) for name in names}
        table = csv.read_csv(
            stream,
            csv.ReadOptions(block_size=_BLOCK_BYTES),
            csv.ParseOptions(delimiter="\t", quote_char=False),
            csv.ConvertOptions(column_types=types, null_values=["NA"], strings_can_be_null=False),
        )
    for name in _MAY_BE_MISSING & set(names):
        values = table[name]
        table = table.set_column(names.index(name), name, pc.if_else(pc.equal(values, "NA"), None, values))
    return table


def _kind(column: str) -> pa.DataType:
    return pa.string() if column in _TEXT else pa.int64() if column in _WHOLE else pa.float64()
