"""What ``train`` replaces in its output folder, and what it resumes there."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from support import FAST_TRAINING, Result, make_unfinished
from virnucpro_pl.models.weights.checkpoints import read_file

Cli = Callable[..., Result]
Train = Callable[..., Result]


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but log and lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("run.log", "lock")
    }


def refused(result: Result, *parts: str, code: int = 2) -> None:
    errors = [line for line in result.err.splitlines() if line.startswith("Error")]
    assert result.code == code, result.err
    assert len(errors) == 1, result.err
    assert "Traceback" not in result.err
    for part in parts:
        assert part in errors[0]


# --- files of others


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_embeddings_of_embed_are_never_replaced(
    state: str, cli: Cli, train: Train, dataset: Path, embeddings: Path, tmp_path: Path
) -> None:
    shutil.copytree(embeddings, tmp_path / "head" / "embeddings")
    if state == "unfinished":
        make_unfinished(tmp_path / "head" / "embeddings", command="embed")
    before = content(tmp_path / "head")
    words = (f"input={dataset}", f"output={tmp_path / 'head'}", *FAST_TRAINING, "trainer.max_epochs=1")
    for more in ([], ["overwrite=true"]):
        refused(cli("train", *words, *more), "holds embeddings, which `train` would replace and has not written")
        assert content(tmp_path / "head") == before


def test_embed_into_the_folder_of_a_head_is_not_part_of_it(
    cli: Cli, train: Train, dataset: Path, tmp_path: Path, embeddings: Path
) -> None:
    assert train(epochs=1).code == 0
    assert "embeddings" not in json.loads((tmp_path / "head" / "run.json").read_text())["folders"]
    shutil.copytree(embeddings, tmp_path / "head" / "embeddings")
    before = content(tmp_path / "head" / "embeddings")
    refused(train("overwrite=true", epochs=1), "holds embeddings")
    assert content(tmp_path / "head" / "embeddings") == before


def test_overwrite_removes_only_files_that_train_has_written(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    head = tmp_path / "head"
    words = (f"input={dataset}", f"output={head}", *FAST_TRAINING, "trainer.max_epochs=1", "overwrite=true")
    assert cli("train", *words).code == 0
    assert set(json.loads((head / "run.json").read_text())["folders"]) >= {"checkpoints", "csv", "embeddings"}
    mine = ("checkpoints/mine.ckpt", "csv/notes.txt", "csv/version_0/notes.txt", "embeddings/shards/notes.txt")
    for name in mine:
        (head / name).write_text("mine")
    for state in ("finished", "unfinished"):
        if state == "unfinished":
            make_unfinished(head)
        old = list((head / "embeddings" / "shards").glob("*/*.arrow"))
        assert old
        assert cli("train", *words).code == 0
        assert [(head / name).read_text() for name in mine] == ["mine"] * len(mine)
        assert not any(shard.exists() for shard in old)
        assert "checkpoints/mine.ckpt" not in (head / "run.json").read_text()


# --- another run


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_another_training_is_refused_in_the_folder_of_a_head(
    state: str, cli: Cli, train: Train, dataset: Path, tmp_path: Path
) -> None:
    assert train(epochs=2).code == 0
    assert "nothing to do" in train(epochs=2).err
    half = tmp_path / "half"
    assert cli("embed", f"input={dataset}", f"output={half}", "dtype=float16", "trainer.accelerator=cpu").code == 0
    if state == "unfinished":
        make_unfinished(tmp_path / "head")
    before = content(tmp_path / "head")
    whose = "the results of another run" if state == "finished" else "an unfinished run"
    for words, epochs, told in (
        ([], 3, "trainer.max_epochs=2 there, 3 here"),
        (["callbacks.early_stopping.patience=1"], 2, "callbacks.early_stopping.patience=5 there, 1 here"),
        (["callbacks.early_stopping=null"], 2, "callbacks.early_stopping=EarlyStopping there, None here"),
        (["trainer.gradient_clip_val=1.0"], 2, "trainer.gradient_clip_val=None there, 1.0 here"),
        ([f"embeddings={half}"], 2, "embeddings.dtype=float32 there, float16 here"),
    ):
        refused(train(*words, epochs=epochs), f"holds {whose}", told)
        assert content(tmp_path / "head") == before


def test_other_encoders_are_refused_in_the_folder_of_a_head(
    cli: Cli, train: Train, dataset: Path, tmp_path: Path
) -> None:
    from virnucpro_pl.configuration.hydra_config import PACKAGE

    encoder = tmp_path / "encoder"
    shutil.copytree(PACKAGE / "demo" / "DNABERT-S", encoder)
    words = ["train", f"input={dataset}", f"output={tmp_path / 'head'}", f"model.dna_encoder.weights={encoder}"]
    words += [*FAST_TRAINING, "trainer.max_epochs=1"]
    assert cli(*words).code == 0
    assert "nothing to do" in cli(*words).err
    assert "nothing to do" in train(epochs=1).err, "the same embeddings"
    weights = encoder / "config.json"
    weights.write_text(weights.read_text() + "\n")
    refused(cli(*words), "holds the results of another run (model.dna_encoder.weights: other weights)")


# --- damage


def flip_bit(path: Path, place: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def place_of_weights(path: Path) -> int:
    """Return a place in the middle of the largest tensor of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
    return largest.header_offset + largest.file_size // 2


def test_a_damaged_checkpoint_is_refused(train: Train, tmp_path: Path) -> None:
    assert train(epochs=2).code == 0
    head = tmp_path / "head" / "head.safetensors"
    whole = read_file(head).tensors
    make_unfinished(tmp_path / "head")
    last = tmp_path / "head" / "checkpoints" / "last.ckpt"
    sound = last.read_bytes()
    for damage in (b"PK\x03\x04 cut short", sound[: len(sound) // 2], None):
        last.write_bytes(sound if damage is None else damage)
        if damage is None:
            flip_bit(last, place_of_weights(last))
        refused(train(epochs=2), "last.ckpt: damaged", "overwrite=true", "best.ckpt", code=1)
    last.unlink()
    assert train(epochs=2).code == 0
    assert all(torch.equal(tensor, whole[name]) for name, tensor in read_file(head).tensors.items())


@pytest.mark.parametrize("name", ["index.parquet", "embeddings.json"])
def test_damaged_embeddings_are_refused(name: str, train: Train, embeddings: Path, tmp_path: Path) -> None:
    copy = tmp_path / "embeddings"
    shutil.copytree(embeddings, copy)
    flip_bit(copy / name, (copy / name).stat().st_size // 2)
    refused(
        train(f"embeddings={copy}", epochs=1), f"embeddings={copy}: damaged: {name} was changed since it was written"
    )
    assert not (tmp_path / "head" / "head.safetensors").exists()


def test_a_damaged_head_is_refused(cli: Cli, train: Train, dataset: Path, embeddings: Path, tmp_path: Path) -> None:
    assert train(epochs=1).code == 0
    head = tmp_path / "head" / "head.safetensors"
    flip_bit(head, head.stat().st_size - 100)
    given = f"model.head.weights={head}"
    for words in (
        ("predict", f"output={tmp_path / 'p'}", "data.chunk_length=100", "trainer.accelerator=cpu"),
        ("test", f"input={dataset}", f"embeddings={embeddings}", f"output={tmp_path / 't'}"),
        ("train", f"input={dataset}", f"embeddings={embeddings}", f"output={tmp_path / 'again'}", *FAST_TRAINING),
        ("export", f"output={tmp_path / 'head.pth'}"),
    ):
        refused(cli(*words, given), f"{head}: damaged: its SHA-256 differs from the one in the file")


def test_damaged_run_records_are_one_line(
    cli: Cli, train: Train, dataset: Path, embeddings: Path, tmp_path: Path
) -> None:
    assert train(epochs=1).code == 0
    shutil.copytree(embeddings, tmp_path / "embeddings")
    embed = ("embed", f"input={dataset}", f"output={tmp_path / 'embeddings'}", "trainer.accelerator=cpu")
    for name, key, again in (
        ("head", "warnings", lambda: train(epochs=1)),
        ("embeddings", "counts", lambda: cli(*embed)),
    ):
        file = tmp_path / name / "run.json"
        run = json.loads(file.read_text())
        for damaged in (key, "figures", "started", "folders"):
            for value in (None, 3, {"shards": 3}, [[]]):
                file.write_text(json.dumps({**run, damaged: value}))
                refused(again(), "output=")
        file.write_text(json.dumps(run))
        assert "nothing to do" in again().err
