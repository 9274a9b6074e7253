"""The README and the documentation tell the truth."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support import CHECKOUT, TESTS, Result
from virnucpro_pl.files.output_files import RECORD_TABLE, REPORT, RESULT_FILES

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def test_demo_command_writes_every_file_the_readme_names(cli: Callable[..., Result], tmp_path: Path) -> None:
    """What `make demo` runs, into another folder."""
    makefile = (CHECKOUT / "Makefile").read_text()
    arguments = re.search(r"-m virnucpro_pl (predict .*)", makefile)
    assert arguments
    words = [word for word in arguments[1].split() if not word.startswith(("output=", "<"))]
    assert cli(*words, f"output={tmp_path}").code == 0
    named = set(re.findall(r"`([\w.]+\.(?:tsv|fasta|parquet|txt|csv|json|log|html))`", README))
    assert named == {*RESULT_FILES, REPORT, "run.json", "run.log"}
    assert all((tmp_path / name).exists() for name in named)
    header = (tmp_path / RECORD_TABLE).read_text().splitlines()[0].split("\t")
    shipped = CHECKOUT / "src" / "virnucpro_pl" / "demo" / "sample.sequences.tsv"
    rows = [(tmp_path / RECORD_TABLE).read_text().splitlines(), shipped.read_text().splitlines()]
    for found, expected in zip(*rows, strict=True):
        score = header.index("max_virus_score")
        cells, wanted = found.split("\t")[:-1], expected.split("\t")  # the last tells where the sample lies
        if cells[score] not in ("NA", "max_virus_score"):
            assert float(cells.pop(score)) == pytest.approx(float(wanted.pop(score)), abs=1e-5)
        assert cells == wanted
    results = (CHECKOUT / "docs" / "results.md").read_text(encoding="utf-8")
    table = results.partition("## sequences.tsv")[2].partition("\n## ")[0]
    explained = re.findall(
        r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `"))
    )
    assert explained == header
    for name in ("prediction_results.txt", "prediction_results_highestscore.csv"):
        for column in (tmp_path / name).read_text().splitlines()[0].split("\t"):
            assert f"`{column}`" in results
    assert pq.read_table(tmp_path / "predictions.parquet").num_rows > 100


def test_every_setting_the_readme_names_exists() -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from virnucpro_pl import __main__ as program

    program.register_resolvers()
    needed = ["paths.output_dir=x"]
    commands = {"predict": ["model=virnucpro_500"], "prepare": ["input=x"], "test": ["input=x"], "benchmark": []}
    commands["train"] = ["input=x", "fine_tuning=lora"]
    with initialize_config_dir(str(program.CONF), version_base="1.3"):
        configs = [compose(name, [*overrides, *needed]) for name, overrides in commands.items()]
    documents = [README, *(path.read_text(encoding="utf-8") for path in (CHECKOUT / "docs").rglob("*.md"))]
    groups = "data|model|trainer|results|callbacks|split|threshold|fine_tuning|optimizer"
    keys = set(re.findall(rf"\b((?:{groups})\.[\w.]+)=", "\n".join(documents)))
    assert len(keys) > 25
    for key in keys:
        found = [OmegaConf.select(cfg, key, throw_on_missing=False, default="absent") for cfg in configs]
        assert any(value != "absent" for value in found), key


def test_links_lead_somewhere() -> None:
    for path in [CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_readme_stays_short() -> None:
    assert len(README.splitlines()) < 150


def test_requirements_name_tests_that_exist() -> None:
    document = (CHECKOUT / "docs" / "testing.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", document)
    assert len(named) > 50
    assert re.findall(r"^\| (\d) \|.*::", document.partition("## Traps")[2], re.MULTILINE) == list("1234567")
    for path, name in named:
        assert f"def {name}(" in (TESTS / path).read_text(encoding="utf-8"), f"{path}::{name}"
