"""F4: every way to read our tables that the documentation shows keeps ids to the letter, whatever they look like."""

import math
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from support import CHECKOUT, run_here

IDS = ["NA", "null", "NULL", "nan", "NaN", "None", "<NA>", "N/A", "1e3", "TRUE", "T", "007", "1", "1_1", "-", "."]
IDS += ["inf", "2026-11-28", "0x1F", '"', '"a"', 'a"b', "'", "=1+1", "+x", "@y", "#z", "a,b", "a;b", "\\N", "\\t", "\\"]
IDS += ["${x}", "é", "x" * 300_000, ""]
READERS = {
    imports[0]: block
    for block in re.findall(r"```python\n(.*?)```", (CHECKOUT / "docs/results.md").read_text("utf-8"), re.DOTALL)
    if "results/sequences.tsv" in block
    and (imports := [name for name in re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE) if name != "csv"])
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of reads with these ids, and of one without a call."""
    folder = tmp_path_factory.mktemp("readers")
    reads = "".join(f">{name}\n{'ATGGCTGCTAAAGCTGCTGCTGGT' * 6}\n" for name in IDS)
    (folder / "reads.fa").write_text(f"{reads}>stops\n{'TAATTAATTAA' * 9}\n", encoding="utf-8")
    settings = [f"input={folder / 'reads.fa'}", f"output={folder / 'results'}", "trainer.accelerator=cpu"]
    assert run_here("predict", *settings) == 0
    return folder


def columns_of(table: Any) -> dict[str, list[Any]]:
    """Columns of a table of any of these packages as lists."""
    if hasattr(table, "fetchall"):
        return dict(zip(table.columns, zip(*table.fetchall(), strict=True), strict=True))
    names = table.column_names if hasattr(table, "column_names") else table.columns
    return {name: [*(table[name].to_pylist() if hasattr(table[name], "to_pylist") else table[name])] for name in names}


def test_all_readers_are_shown() -> None:
    assert set(READERS) == {"pandas", "polars", "pyarrow", "duckdb"}


@pytest.mark.parametrize("reader", READERS)
def test_ids_are_kept(reader: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not find_spec(reader):
        pytest.skip(f"{reader} is not installed: make test-optional brings it")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(READERS[reader], "documentation", "exec"), names)
    columns = columns_of(names["records"])
    assert [*columns["sequence_id"]] == [*IDS, "stops"]
    *scores, missing = columns["max_virus_score"]
    assert all(isinstance(score, float) and 0 <= score <= 1 for score in scores)
    assert missing is None or math.isnan(missing)
    assert columns["call"][-1] == "NA"
    assert set(columns["call"][:-1]) <= {"virus", "others"}
    assert [str(number) for number in columns["length"]] == [*["144"] * len(IDS), "99"]


def test_ids_are_kept_in_a_shell(folder: Path) -> None:
    """The lines of awk."""
    awk = shutil.which("awk")
    if awk is None:
        pytest.skip("awk is not installed; it comes with every Unix but small containers")
    page = (CHECKOUT / "docs/results.md").read_text("utf-8")
    ids, statuses = re.findall(r"^(awk .*)$", page, re.MULTILINE)
    printed = subprocess.run(["sh", "-c", ids], cwd=folder, capture_output=True, text=True, check=True).stdout
    lines = (folder / "results" / "sequences.tsv").read_text("utf-8").splitlines()
    viral = [cells[1] for line in lines if (cells := line.split("\t"))[10] == "virus"]
    assert printed == "".join(f"{name}\n" for name in viral)
    counted = subprocess.run(["sh", "-c", statuses], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert sorted(counted.splitlines()) == [f"called {len(IDS)}", "no_orf 1"]
