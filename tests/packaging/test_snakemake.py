"""The Snakemake rule, with Snakemake: the packaged demo end to end. Runs in ``make test-optional``, which brings it."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from support import CHECKOUT
from virnucpro_pl.configuration.hydra_config import PACKAGE
from virnucpro_pl.files.output_files import REPORT, RESULT_FILES

SAMPLE = PACKAGE / "demo" / "sample.fasta.gz"
RULES = CHECKOUT / "packaging" / "snakemake"

ODD = ["it's $HOME `2`; [1-2]*.fa", "-i.fa", "1_1", "a=b"]

pytestmark = pytest.mark.skipif(not find_spec("snakemake"), reason="snakemake is not installed: make test-optional")


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    """A folder with the example and, as its samples, files that shells and Hydra would misread."""
    folder = tmp_path / "work flow"
    shutil.copytree(RULES, folder)
    for name in ("odd (name), x=1.fa", *ODD):
        shutil.copy(SAMPLE, folder / name)
    config = yaml.safe_load((RULES / "config.yaml").read_text(encoding="utf-8"))
    config["samples"] = {"one": "odd (name), x=1.fa", "two, (b)=c": ODD}
    config["results"] = "re sults, (x)=2"
    config["virnucpro"] |= {"threads": 1, "extra": ["formats.kraken=true", "results.tie=ambiguous"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    programs = folder.parent / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "virnucpro-pl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m virnucpro_pl "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder.parent),
        "XDG_CACHE_HOME": str(folder.parent / "cache"),
    }
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_rule_predicts_files_of_any_name(workflow: Path) -> None:
    result = snakemake(workflow)
    assert result.returncode == 0, result.stderr
    for sample, records, inputs in (("one", 44, 1), ("two, (b)=c", 44 * len(ODD), len(ODD))):
        folder = workflow / "re sults, (x)=2" / sample
        assert {path.name for path in folder.iterdir()} == {*RESULT_FILES, REPORT, "run.json", "run.log", "kraken.tsv"}
        assert len((folder / "sequences.tsv").read_text(encoding="utf-8").splitlines()) == 1 + records
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        assert len(run["counts"]["inputs"]) == inputs
        assert run["config"]["results"]["tie"] == "ambiguous"
        assert run["config"]["threads"] == 1
        assert run["config"]["trainer"]["accelerator"] == "cpu"
    assert "Nothing to be done" in snakemake(workflow).stderr


@pytest.mark.parametrize(
    ("gpus", "device"),
    [(0, "--device cpu "), (1, "--device cuda "), (2, "--device cuda trainer.devices=2 trainer.strategy=ddp ")],
)
def test_rule_asks_for_gpus(gpus: int, device: str, workflow: Path) -> None:
    config = yaml.safe_load((workflow / "config.yaml").read_text(encoding="utf-8"))
    config["virnucpro"] |= {"gpus": gpus, "extra": ["model.head.weights=my head's.pth"]}
    (workflow / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    result = snakemake(workflow, "--dry-run", "--printshellcmds", "--resources", "gpu=2")
    assert result.returncode == 0, result.stderr
    shown = result.stdout + result.stderr
    assert device in shown
    assert f"gpu={gpus}" in shown
    assert """'model.head.weights=my head'"'"'s.pth'""" in shown


def test_failed_prediction_fails_the_workflow_and_tells_why(workflow: Path) -> None:
    (workflow / "odd (name), x=1.fa").write_text("no sequences\n", encoding="utf-8")
    result = snakemake(workflow, "--", "re sults, (x)=2/one/sequences.tsv")
    assert result.returncode == 1
    log = (workflow / "re sults, (x)=2" / "logs" / "one.log").read_text(encoding="utf-8")
    assert "Error: " in log
