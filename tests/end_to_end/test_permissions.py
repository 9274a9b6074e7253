"""F6: files that a command leaves can be read by those whom the umask lets, whatever library wrote them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fsspec.implementations.local import get_umask

from support import MINI, Result, open_genome
from virnucpro_pl.files.durable import replacing
from virnucpro_pl.models.weights.converted import is_converted
from virnucpro_pl.models.weights.sources import DnabertSSource

CPU = "trainer.accelerator=cpu"
UMASKS = [0o022, 0o077]


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    get_umask.cache_clear()  # which Lightning's checkpoints are written by; a process has one umask
    yield request.param
    os.umask(before)
    get_umask.cache_clear()


def assert_as_the_umask_says(folder: Path, umask: int) -> None:
    found = {path: path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert found
    wrong = {
        str(path.relative_to(folder)): oct(mode)
        for path, mode in found.items()
        if mode != (0o777 if path.is_dir() else 0o666) & ~umask
    }
    assert wrong == {}


def write_genomes(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("virus", "others"):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            text = f">{name}{number}\n{open_genome(generator, 1500)}\n"
            (folder / name / f"{name}{number}.fna").write_text(text)


def test_files_of_predict(umask: int, cli: Callable[..., Result], tmp_path: Path) -> None:
    formats = [f"formats.{name}=true" for name in ("nonviral", "kraken", "bed", "multiqc")]
    cache = f"data.embedding_cache={tmp_path / 'cache'}"
    assert cli("predict", f"output={tmp_path / 'results'}", CPU, cache, *formats).code == 0
    assert cli("report", f"output={tmp_path / 'results'}", "format=png").code == 0
    assert_as_the_umask_says(tmp_path, umask)


def test_files_of_training(umask: int, cli: Callable[..., Result], tmp_path: Path) -> None:
    """A head and trained encoders are often shared by a group."""
    write_genomes(tmp_path / "genomes")
    dataset = tmp_path / "dataset"
    assert cli("prepare", f"input={tmp_path / 'genomes'}", f"output={dataset}", "data.chunk_length=150").code == 0
    common = [f"input={dataset}", CPU]
    tuning = ["fine_tuning=full", "trainer.max_epochs=1"]
    assert cli("train", *common, f"output={tmp_path / 'tuned'}", *tuning).code == 0
    assert cli("train", *common, f"output={tmp_path / 'head'}", "trainer.max_epochs=2").code == 0
    head = f"model.head.weights={tmp_path / 'head' / 'head.safetensors'}"
    assert cli("test", *common, f"output={tmp_path / 'tested'}", head, "resamples=5").code == 0
    assert_as_the_umask_says(tmp_path, umask)


def test_files_of_a_converted_encoder(umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_CACHE", str(tmp_path / "cache"))
    folder = DnabertSSource(str(MINI / "models" / "DNABERT-S")).convert(torch.float16)
    assert is_converted(folder)
    assert_as_the_umask_says(tmp_path, umask)


def test_a_file_in_place_of_the_unfinished_one_gets_its_permissions(umask: int, tmp_path: Path) -> None:
    """As safetensors does it."""
    with replacing(tmp_path / "file") as unfinished:
        private = tmp_path / "private"
        private.touch(0o600)
        private.replace(unfinished)
    assert_as_the_umask_says(tmp_path, umask)
