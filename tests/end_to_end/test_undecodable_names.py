r"""F9: names that are not UTF-8, of inputs, folders, weights and genomes; people see ``\xff``, programs the bytes."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support import Result, open_genome
from virnucpro_pl.configuration.hydra_config import PACKAGE
from virnucpro_pl.reporting.wording import repeat_command

DEMO = PACKAGE / "demo"
CPU = "trainer.accelerator=cpu"
ODD = os.fsdecode(b"\xff\xc3d")
SHOWN = r"\xff\xc3d"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; its own name is not UTF-8 either."""
    folder = tmp_path / ODD
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_predict_and_what_follows(folder: Path, cli: Callable[..., Result]) -> None:
    (folder / f"reads{ODD}.fa").write_text(f">read\n{'ATGGCTGCTAAAGCTGCTGCTGGT' * 30}\n")
    weights = ("DNABERT-S", "esm2_t1_demo_UR50D.pt", "head.safetensors")
    for name in weights:
        copy = shutil.copytree if (DEMO / name).is_dir() else shutil.copy
        copy(DEMO / name, folder / f"{ODD}{name}")
    keys = ("model.dna_encoder.weights", "model.protein_encoder.weights", "model.head.weights")
    settings = [f"{key}={ODD}{name}" for key, name in zip(keys, weights, strict=True)]
    settings += [f"formats.{name}=true" for name in ("nonviral", "kraken", "bed", "multiqc")]
    reads, output = f"reads{ODD}.fa", f"out{ODD}"
    done = cli("predict", "-i", reads, "-o", output, CPU, *settings, f"data.embedding_cache=cache{ODD}")
    assert done.code == 0, done.err
    assert rf"out{SHOWN} (start with report.html" in done.err

    results = folder / output
    assert results.joinpath("sequences.tsv").read_text(encoding="utf-8").endswith(rf"reads{SHOWN}.fa" + "\n")
    page = results.joinpath("report.html").read_text(encoding="utf-8")
    assert rf"reads{SHOWN}.fa" in page
    assert rf"&#39;{SHOWN}head.safetensors" in page or rf"={SHOWN}head.safetensors" in page
    assert SHOWN in results.joinpath("run.log").read_text(encoding="utf-8")
    run = json.loads(results.joinpath("run.json").read_text(encoding="utf-8"))
    assert os.fsencode(run["counts"]["inputs"][0]["path"]).endswith(b"reads\xff\xc3d.fa")
    samples = json.loads(results.joinpath("virnucpro_calls_mqc.json").read_text(encoding="utf-8"))["data"]
    assert [*samples] == [rf"reads{SHOWN}"]

    for words in (["verify", output], ["report", output, "format=png"], ["compare", output, output, f"output=c{ODD}"]):
        result = cli(*words)
        assert result.code == 0, result.err
        assert not any("\udc80" <= letter <= "\udcff" for letter in result.err + result.out)
    (results / "sequences.tsv").unlink()
    assert rf"out{SHOWN}" in cli("verify", output).err


def test_a_sweep(folder: Path, cli: Callable[..., Result]) -> None:
    (folder / f"reads{ODD}.fa").write_text(">read\nATGGCTGCTAAAGCTGCTGCTGGT\n")
    result = cli("predict", "-m", f"input=reads{ODD}.fa", f"output=sweep{ODD}", CPU, "data.token_budget=512,1024")
    assert result.code == 0, result.err
    assert len((folder / f"sweep{ODD}" / "sweep.tsv").read_text(encoding="utf-8").splitlines()) == 3


def test_training(folder: Path, cli: Callable[..., Result]) -> None:
    generator = np.random.default_rng(0)
    for name in ("virus", "others"):
        (folder / f"genomes{ODD}" / name).mkdir(parents=True)
        for number in range(5):
            path = folder / f"genomes{ODD}" / name / f"{name}{number}{ODD}.fna"
            path.write_text(f">{name}{number}\n{open_genome(generator, 1500)}\n")
    head = f"model.head.weights=head{ODD}/head.safetensors"
    commands = [
        ["prepare", f"input=genomes{ODD}", f"output=dataset{ODD}", "data.chunk_length=150"],
        ["train", f"input=dataset{ODD}", f"output=head{ODD}", CPU, "trainer.max_epochs=1"],
        ["train", f"input=dataset{ODD}", f"output=head{ODD}", CPU, "trainer.max_epochs=1"],
        ["test", f"input=dataset{ODD}", f"output=tested{ODD}", CPU, head, "resamples=5"],
        ["export", head, f"output=head{ODD}.pth"],
    ]
    for command in commands:
        result = cli(*command)
        assert result.code == 0, result.err
    groups = (folder / f"tested{ODD}" / "groups.tsv").read_text(encoding="utf-8")
    assert SHOWN in groups


def test_a_command_to_repeat_can_be_typed() -> None:
    run = {"command": ["virnucpro-pl", "predict", f"input=it's {ODD}.fa"]}
    assert repeat_command(run) == rf"virnucpro-pl predict $'input=it\'s {SHOWN}.fa'"
