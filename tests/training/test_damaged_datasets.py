"""C1, C2, F1, F3: damaged datasets, and genomes that change, are pipes, or are no nucleotides."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support import Result
from virnucpro_pl.errors import UserError
from virnucpro_pl.training.fragments import Cutter, LengthRange
from virnucpro_pl.training.genomes import read_genomes
from virnucpro_pl.training.labelled_store import LabelledStore
from virnucpro_pl.training.preparation import PrepareSettings, find_candidates, read_examples


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def zero_the_end(path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, max(size - 40, 0))
    os.truncate(path, size)


@pytest.mark.parametrize("damage", [flip_a_bit, zero_the_end, Path.unlink], ids=["a bit", "footer", "removed"])
@pytest.mark.parametrize(
    "file",
    [
        *(f"{name}.arrow" for name in ("records", "chunks", "orfs")),
        *(f"duplicate_{name}.npy" for name in ("names", "orfs", "proteins")),
        "labels.parquet",
        "manifest.json",
        "dataset.json",
    ],
)
def test_a_damaged_dataset_is_told_in_one_line_that_names_the_file(
    dataset: Path, tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    """C1, C2: a dataset cannot be rebuilt, so nothing is trained on what is left of it."""
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    LabelledStore.checked(copy)
    damage(copy / file)
    with pytest.raises(UserError, match="`prepare`") as caught:
        LabelledStore.checked(copy)
    assert "\n" not in str(caught.value)
    assert file in str(caught.value) or (file, damage) == ("dataset.json", Path.unlink)


@pytest.mark.parametrize("command", ["train", "test", "embed", "predict"])
def test_no_command_reads_a_damaged_dataset(
    dataset: Path, tmp_path: Path, cli: Callable[..., Result], command: str
) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    flip_a_bit(copy / "orfs.arrow")
    words = ["model.head.any_chunk_length=true"] if command in ("test", "predict") else []
    result = cli(command, f"input={copy}", f"output={tmp_path / 'out'}", "trainer.accelerator=cpu", *words)
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    assert f"{copy / 'orfs.arrow'}: damaged (its SHA-256 differs)" in result.err


def test_a_damaged_order_of_embedding_is_made_again(dataset: Path, tmp_path: Path, caplog) -> None:
    """C1: it is all that can be."""
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    rows = LabelledStore.checked(copy).by_length(deduplicate=True).rows[:].tolist()
    flip_a_bit(copy / "by_length-distinct" / "rows.npy")
    assert LabelledStore.checked(copy).by_length(deduplicate=True).rows[:].tolist() == rows
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "by_length-distinct is written again" in warning


def test_a_file_of_proteins_is_no_genome(prepared, genomes: Path, tmp_path: Path) -> None:
    """F3, as predict refuses it and warns."""
    folder = Path(shutil.copytree(genomes, tmp_path / "genomes"))
    (folder / "virus" / "virus0.fna").write_text(">p\n" + "EFILPQ" * 100 + "\n")
    assert "virus0.fna: 600 of 600 letters (100.00%) are no nucleotides" in prepared(f"input={folder}").err
    (folder / "virus" / "virus0.fna").write_text(">p\n" + "ACGCCGACGTCC" * 100 + "EF\n")
    result = prepared(f"input={folder}")
    assert result.code == 0, result.err
    assert result.err.count("2 of 1,202 letters") == 1


def test_a_genome_that_changes_between_the_readings_is_refused(genomes: Path, tmp_path: Path) -> None:
    """F1: files are read twice, and what was chosen of the first would be cut from the second."""
    folder = Path(shutil.copytree(genomes, tmp_path / "genomes"))
    (genome, *_) = read_genomes(folder)
    settings, cutter = PrepareSettings(chunk_length=100), Cutter(LengthRange(100, 100), "published", 1, 42)
    file = find_candidates(genome, settings, cutter)
    chosen = np.ones(len(file.frames), dtype=np.bool_)
    genome.path.write_text(genome.path.read_text().replace("A", "C", 1))
    with pytest.raises(UserError, match="was changed while it was read"):
        list(read_examples(genome, file, chosen, settings, cutter))


def test_a_pipe_among_genomes_is_refused(prepared, genomes: Path, tmp_path: Path) -> None:
    """F1: not left out in silence."""
    folder = Path(shutil.copytree(genomes, tmp_path / "genomes"))
    os.mkfifo(folder / "virus" / "pipe.fna")
    assert "pipe.fna: no regular file; `prepare` reads every file twice" in prepared(f"input={folder}").err
