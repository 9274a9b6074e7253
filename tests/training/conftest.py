"""Small genomes whose classes differ, and a dataset of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support import FAST_TRAINING, Result, open_genome

SHARES = {"virus": (0.32, 0.18, 0.22, 0.28), "others": (0.18, 0.32, 0.28, 0.22)}  # of A, C, G, T


@pytest.fixture(scope="session")
def genomes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five files of each class, one record of 1,500 bases each."""
    folder = tmp_path_factory.mktemp("genomes")
    rng = np.random.default_rng(0)
    for name in ("virus", "others"):
        (folder / name).mkdir()
        for number in range(5):
            text = f">{name}{number} a genome\n{open_genome(rng, 1500, SHARES[name])}\n"
            (folder / name / f"{name}{number}.fna").write_text(text)
    return folder


@pytest.fixture(scope="session")
def dataset(genomes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fragments of 100 bases of the genomes."""
    from virnucpro_pl.training.dataset_writer import DatasetWriter, appearing
    from virnucpro_pl.training.fragments import Cutter, LengthRange
    from virnucpro_pl.training.genomes import read_genomes
    from virnucpro_pl.training.preparation import PrepareSettings, choose, find_candidates, read_examples

    folder = tmp_path_factory.mktemp("dataset")
    settings = PrepareSettings(chunk_length=100)
    cutter = Cutter(LengthRange(100, 100), "published", 1, 42)
    sources = read_genomes(genomes)
    with appearing(folder, overwrite=False) as building:
        files = [find_candidates(source, settings, cutter) for source in sources]
        chosen = choose(files, sources, settings)
        writer = DatasetWriter(building, sources, files, settings, 100)
        for source, file, some in zip(sources, files, chosen, strict=True):
            writer.write_file(source, file, some, read_examples(source, file, some, settings, cutter))
        writer.finish({"version": "test"}, 42)
    return folder


@pytest.fixture
def prepared(cli: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """Run ``prepare`` into ``tmp_path/dataset``."""

    def run(*arguments: object) -> Result:
        return cli("prepare", f"output={tmp_path / 'dataset'}", *arguments)

    return run


@pytest.fixture
def embeddings(cli: Callable[..., Result], dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of the dataset by the demo model, computed once."""
    folder = tmp_path_factory.getbasetemp() / f"embeddings-{dataset.name}"
    if not (folder / "run.json").exists():
        result = cli("embed", f"input={dataset}", f"output={folder}", "trainer.accelerator=cpu")
        assert result.code == 0, result.err
    return folder


@pytest.fixture
def train(cli: Callable[..., Result], dataset: Path, embeddings: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run ``train`` on the dataset and its embeddings, into ``tmp_path/head``."""

    def run(*arguments: object, output: str = "head", epochs: int = 3) -> Result:
        given = () if any(str(word).startswith("embeddings=") for word in arguments) else (f"embeddings={embeddings}",)
        words = (f"input={dataset}", *given, f"output={tmp_path / output}")
        overridden = {str(word).partition("=")[0] for word in arguments}
        usual = [word for word in FAST_TRAINING if word.partition("=")[0] not in overridden]
        return cli("train", *arguments, *words, *usual, f"trainer.max_epochs={epochs}")

    return run
