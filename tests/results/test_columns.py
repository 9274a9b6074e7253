"""The columns are declared once; the documentation shows the declaration."""

import pyarrow as pa
import pyarrow.parquet as pq

from support import CHECKOUT
from virnucpro_pl.results.columns import (
    CHUNK_COLUMNS,
    CONSENSUS_COLUMNS,
    ORF_COLUMNS,
    RECORD_COLUMNS,
    markdown,
    names,
    schema,
)

TABLES = (RECORD_COLUMNS, CHUNK_COLUMNS, ORF_COLUMNS, CONSENSUS_COLUMNS)


def test_the_documentation_shows_the_declared_columns() -> None:
    """To write a changed table into the page, print ``markdown(RECORD_COLUMNS)``."""
    page = (CHECKOUT / "docs" / "results.md").read_text(encoding="utf-8")
    for columns in TABLES:
        assert markdown(columns) in page


def test_files_have_the_declared_columns(cli, tmp_path) -> None:
    assert cli("predict", f"output={tmp_path}", "trainer.accelerator=cpu").code == 0
    files = ("sequences.tsv", None, "prediction_results.txt", "prediction_results_highestscore.csv")
    for columns, file in zip(TABLES, files, strict=True):
        if file:
            assert (tmp_path / file).read_text().splitlines()[0].split("\t") == names(columns)
    assert pq.read_schema(pa.memory_map(str(tmp_path / "predictions.parquet"))).remove_metadata() == schema(
        CHUNK_COLUMNS
    )
