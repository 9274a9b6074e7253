"""Reader of the result tables."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from virnucpro_pl.files.file_names import open_arrow
from virnucpro_pl.results.columns import ORF_COLUMNS, RECORD_COLUMNS

_BLOCK_BYTES = 1 << 23  # more than the longest row, as an id may have 1 MiB
_COLUMNS = {column.name: column for column in (*RECORD_COLUMNS, *ORF_COLUMNS)}


def read_result_table(path: Path) -> pa.Table:
    """Read ``sequences.tsv``, ``prediction_results.txt`` or ``predictions.parquet``.

    Scores and calls are null if the table has ``NA``. Ids are kept to the letter.

    Raises:
        OSError: the file cannot be read.
        pyarrow.ArrowException: the file is no such table.
    """
    with open_arrow(path) as stream:
        if path.suffix == ".parquet":
            return pq.read_table(stream)
        with path.open(encoding="utf-8", newline="\n") as lines:
            names = lines.readline().rstrip("\n").split("\t")
        types = {name: _type(name) for name in names}
        table = csv.read_csv(
            stream,
            csv.ReadOptions(block_size=_BLOCK_BYTES),
            csv.ParseOptions(delimiter="\t", quote_char=False),
            csv.ConvertOptions(column_types=types, null_values=["NA"], strings_can_be_null=False),
        )
    for name in names:
        if not (name in _COLUMNS and _COLUMNS[name].may_be_missing and types[name] == pa.string()):
            continue
        values = table[name]
        table = table.set_column(names.index(name), name, pc.if_else(pc.equal(values, "NA"), None, values))
    return table


def _type(name: str) -> pa.DataType:
    found = _COLUMNS[name].type if name in _COLUMNS else pa.float64()
    return pa.float64() if pa.types.is_floating(found) else found
