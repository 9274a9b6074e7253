"""Mistakes of the user: one line, exit status 2, no traceback, and nothing is lost."""

import errno
import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from support import MINI, Result
from virnucpro_pl import predict
from virnucpro_pl.api import Predictor
from virnucpro_pl.errors import UserError
from virnucpro_pl.files.folder_lock import FolderLock

Cli = Callable[..., Result]
HEAD = MINI / "models" / "mlp" / "300_model.pth"
CPU = {"trainer.accelerator": "cpu"}
READS = {"a": "ATGGCTGCTAAAGCTGCTGCTGGT" * 6}


def refused(result: Result, told: str, code: int = 2) -> None:
    """Assert that a command ended with one line that holds this text."""
    assert result.code == code, result.err
    (line,) = (line for line in result.err.splitlines() if line.startswith("Error: "))
    assert told in line
    assert "Traceback" not in result.err


@pytest.mark.parametrize("command", ["prepare", "train", "test", "benchmark", "download"])
@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_seeds_have_limits(cli: Cli, tmp_path: Path, command: str, seed: str) -> None:
    words = ["model.head.weights=x"] if command == "test" else []
    given = [] if command in ("benchmark", "download") else [f"input={tmp_path}"]
    result = cli(command, *given, *words, f"output={tmp_path / 'out'}", f"seed={seed}")
    refused(result, f"seed={seed}: give a whole number from 0 to 4294967295")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("optimizer.lr=-1", "optimizer.lr=-1: give a number above 0"),
        ("optimizer.lr=0", "optimizer.lr=0: give a number above 0"),
        ("optimizer.lr=nan", "optimizer.lr=nan: give a number above 0"),
        ("optimizer.lr=inf", "optimizer.lr=inf: give a number above 0"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay=-1: give a number, 0 or more"),
        ("optimizer.momentum=1", "optimizer.momentum=1: give a share from 0 to below 1"),
        ("scheduler.step_size=0", "scheduler.step_size=0: give a whole number above 0"),
        ("fine_tuning=full fine_tuning.lr=-1", "fine_tuning.lr=-1: give a number above 0"),
        ("callbacks.early_stopping.patience=-1", "patience=-1: give a whole number, 0 or more"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0: give a whole number above 0, or -1"),
        ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0: give a whole number above 0"),
        ("+trainer.limit_val_batches=0", "limit_val_batches=0: give a number above 0; early stopping"),
        ("+trainer.check_val_every_n_epoch=2", "check_val_every_n_epoch=2: give 1"),
        ("+trainer.fast_dev_run=true", "fast_dev_run=true: give false"),
        ("callbacks.best=null", "callbacks.best=null: train reads these checkpoints"),
        ("callbacks.last=null", "callbacks.last=null: train reads these checkpoints"),
        ("split=ds", "split=ds: a group of settings; give one in it, such as split.by=…"),
        ("model.head=x.pth", "model.head=x.pth: a group of settings; give one in it, such as model.head.weights=…"),
    ],
)
def test_settings_of_train_have_limits(cli: Cli, tmp_path: Path, words: str, told: str) -> None:
    refused(cli("train", f"input={tmp_path}", f"output={tmp_path / 'out'}", *words.split()), told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["/proc/x.pth", "there.pth/x.pth", f"{'x' * 300}.pth"])
def test_export_to_a_place_that_cannot_be_written(cli: Cli, tmp_path: Path, monkeypatch, output: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.pth").write_text("mine")
    result = cli("export", f"model.head.weights={HEAD}", f"output={output}", "overwrite=true")
    refused(result, f"output={output}: cannot be written (")
    assert [path.name for path in tmp_path.iterdir()] == ["there.pth"]
    assert Path("there.pth").read_text() == "mine"


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/nowhere/at/all"), os.mkfifo], ids=["link", "pipe"])
def test_export_replaces_no_broken_link_and_no_pipe(cli: Cli, tmp_path: Path, make) -> None:
    make(path := tmp_path / "head.pth")
    before = path.lstat()
    for force in ([], ["overwrite=true"]):
        refused(cli("export", f"model.head.weights={HEAD}", f"output={path}", *force), "broken link or no regular file")
        assert path.lstat() == before


def test_export_of_a_head_without_known_lengths(cli: Cli, tmp_path: Path) -> None:
    head = tmp_path / "head.pth"
    shutil.copy(HEAD, head)
    result = cli("export", f"model.head.weights={head}", f"output={tmp_path / 'out.pth'}")
    assert result.code == 0
    assert "None" not in result.err


def test_other_outputs_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    table = tmp_path / "prediction_results.txt"
    table.write_text("Sequence_ID\tPrediction\tscore1\tscore2\na\tvirus\t0.1\t0.9\n")
    refused(cli("compare", f"reference={table}", f"candidate={table}", "output=/proc/x"), "output=/proc/x: ")
    refused(cli("download", "output=/proc/x"), "output=/proc/x: cannot be written")
    refused(cli("prepare", f"input={tmp_path}", "output=/proc/x"), "output=/proc/x: ")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("resamples=-1", "resamples=-1: give a whole number, 0 or more"),
        ("threshold.precision=7", "threshold.precision=7: give a share above 0"),
        ("threshold.false_positive_rate=nan", "threshold.false_positive_rate=nan: give a share from 0"),
        ("threshold=0.5", "threshold=0.5: a group of settings"),
    ],
)
def test_settings_of_test_have_limits(cli: Cli, tmp_path: Path, word: str, told: str) -> None:
    refused(cli("test", f"input={tmp_path}", "model.head.weights=x", f"output={tmp_path / 'out'}", word), told)


@pytest.mark.parametrize(
    "words",
    [
        "optimizer=adamw +optimizer.betas=[2,0.9]",
        "+optimizer.nesterov=true optimizer.momentum=0",
        "callbacks.early_stopping.monitor=nope",
        "callbacks.best.monitor=val_los",
        "callbacks.best.mode=up",
        "class_weights=[1]",
        "fine_tuning=full fine_tuning.mode=half",
        "fine_tuning=lora fine_tuning.rank=0",
        "fine_tuning=lora fine_tuning.rank=x",
        "fine_tuning=full model.fp8=true",
        "model.head.hidden_dim=0",
        "split.by=planet",
        "model.dna_encoder.weights=/nowhere",
        "embeddings=/",
    ],
)
def test_train_finds_mistakes_before_it_removes_an_earlier_head(
    cli: Cli, tmp_path: Path, dataset: Path, words: str
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    record = {"command": ["virnucpro-pl", "train"], "files": {"head.safetensors": {"bytes": 1}}, "identity": {}}
    (output / "run.json").write_text(json.dumps(record))
    (output / "head.safetensors").write_text("x")
    given = [f"input={dataset}", f"output={output}", "overwrite=true", "trainer.accelerator=cpu"]
    result = cli("train", *given, *words.split())
    told = "fine_tuning" if "fp8" in words else words.split()[-1].lstrip("+").partition(".")[0]
    refused(result, told.partition("=")[0])
    assert (output / "head.safetensors").read_text() == "x"
    assert (output / "run.json").exists()


def test_export_to_a_full_disk_keeps_the_earlier_file(cli: Cli, tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fail)
    path = tmp_path / "x.pth"
    path.write_text("earlier")
    result = cli("export", f"model.head.weights={HEAD}", f"output={path}", "overwrite=true")
    refused(result, f"{path}: no space left on the disk", code=1)
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_text() == "earlier"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("command", ["predict", "train", "export"])
def test_heads_whose_weights_are_not_finite(
    cli: Cli, tmp_path: Path, dataset: Path, demo_head: Path, command: str, value: float
) -> None:
    tensors = load_file(demo_head)
    tensors["bn1.running_var"][0] = value
    head = tmp_path / "head.safetensors"
    save_file(tensors, head)
    given = {"predict": [], "train": [f"input={dataset}"], "export": []}[command]
    output = tmp_path / ("x.pth" if command == "export" else "out")
    cpu = [] if command == "export" else ["trainer.accelerator=cpu"]
    result = cli(command, *given, f"model.head.weights={head}", f"output={output}", *cpu)
    refused(result, f"{head}: bn1.running_var holds NaN or infinite numbers")


@pytest.mark.parametrize("command", ["predict", "embed"])
def test_encoders_whose_weights_are_not_finite(cli: Cli, tmp_path: Path, demo_head: Path, command: str) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(demo_head.parent / "DNABERT-S", encoder)
    file = next(encoder.glob("*.bin"))
    state = torch.load(file, weights_only=True)
    name = next(name for name in state if name.endswith("mlp.wo.weight"))
    state[name][0, 0] = float("nan")
    torch.save(state, file)
    reads = tmp_path / "reads.fa"
    reads.write_text(">read\n" + "ATGGCTGCAAAAGCTGGT" * 10 + "\n")
    words = [f"input={reads}", f"model.dna_encoder.weights={encoder}", "trainer.accelerator=cpu"]
    more = ["model.head.any_encoder=true"] if command == "predict" else []
    result = cli(command, *words, *more, f"output={tmp_path / 'out'}")
    assert result.code == 2, result.err
    assert f"Error: {encoder}: layers.0.wo.weight holds NaN or infinite numbers as float32; copy" in result.err
    assert "Traceback" not in result.err


@pytest.fixture(scope="session")
def demo_head() -> Path:
    """The packaged head."""
    from virnucpro_pl.configuration.hydra_config import PACKAGE

    return next((PACKAGE / "demo").glob("*.safetensors"))


def test_a_second_prepare_in_one_folder(cli: Cli, genomes: Path, tmp_path: Path) -> None:
    output = tmp_path / "dataset"
    building = output / ".virnucpro-building-x"
    building.mkdir(parents=True)
    words = ["prepare", f"input={genomes}", f"output={output}", "data.chunk_length=100"]
    with FolderLock(output / ".virnucpro-building-lock") as lock:
        assert lock.take_alone(0.0)
        refused(cli(*words), f"output={output}: another run is at work there")
        assert building.is_dir()
    assert cli(*words).code == 0
    assert not [path for path in output.iterdir() if path.name.startswith(".virnucpro")]


def test_a_dataset_stays_until_the_next_one_is_complete(cli: Cli, genomes: Path, tmp_path: Path) -> None:
    shutil.copytree(genomes, tmp_path / "genomes")
    output = tmp_path / "dataset"
    words = ["prepare", f"input={tmp_path / 'genomes'}", f"output={output}", "overwrite=true"]
    assert cli(*words, "data.chunk_length=100").code == 0
    before = {path.name: path.read_bytes() for path in output.iterdir() if path.name != "run.log"}
    (tmp_path / "genomes" / "virus" / "empty.fna").touch()
    refused(cli(*words, "data.chunk_length=100"), "empty.fna")
    assert before == {path.name: path.read_bytes() for path in output.iterdir() if path.name != "run.log"}
    (tmp_path / "genomes" / "virus" / "empty.fna").unlink()
    assert cli(*words, "data.chunk_length=120").code == 0
    assert json.loads((output / "dataset.json").read_text()) != json.loads(before["dataset.json"])


def test_folders_in_the_folder_of_a_class(cli: Cli, genomes: Path, tmp_path: Path) -> None:
    shutil.copytree(genomes, tmp_path / "genomes")
    inner = tmp_path / "genomes" / "virus" / "more"
    inner.mkdir()
    words = ["prepare", f"input={tmp_path / 'genomes'}", f"output={tmp_path / 'dataset'}"]
    refused(cli(*words), f"{inner}: a folder in the folder of a class")
    inner.rename(inner.with_name(".hidden"))
    assert cli(*words, "data.chunk_length=100").code == 0


def test_sequence_files_beside_the_folders_of_classes(cli: Cli, genomes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "genomes"
    shutil.copytree(genomes, folder)
    words = ["prepare", f"input={folder}", f"output={tmp_path / 'dataset'}", "data.chunk_length=100"]
    for name, content in (("x.fna", b">x\nACGT\n"), ("x.gz", gzip.compress(b">x\nACGT\n")), ("x", b"LOCUS       x\n")):
        (folder / name).write_bytes(content)
        refused(cli(*words), f"{folder / name}: lies in no folder of a class; move it to others or virus")
        (folder / name).unlink()
    (folder / "README.md").write_text("Genomes of this study\n")
    assert cli(*words).code == 0


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["virus", "others"])
def test_one_file_by_two_paths(cli: Cli, genomes: Path, tmp_path: Path, name: str, link: Callable) -> None:
    shutil.copytree(genomes, tmp_path / "genomes")
    link(tmp_path / "genomes" / "virus" / "virus0.fna", tmp_path / "genomes" / name / "x.fna")
    result = cli("prepare", f"input={tmp_path / 'genomes'}", f"output={tmp_path / 'dataset'}")
    refused(result, "is named twice, also as ")


def test_one_file_by_two_paths_of_a_table(cli: Cli, genomes: Path, tmp_path: Path) -> None:
    rows = ["virus/virus0.fna\tvirus\ta", "virus/../virus/virus0.fna\tvirus\tb", "others/others0.fna\tothers\tc"]
    shutil.copytree(genomes, tmp_path / "genomes")
    table = tmp_path / "genomes" / "genomes.tsv"
    table.write_text("\n".join(["file\tclass\tgroup", *rows]) + "\n")
    result = cli("prepare", f"input={table}", f"output={tmp_path / 'dataset'}")
    refused(result, "virus/../virus/virus0.fna is named twice, also as virus/virus0.fna")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"resuls.threshold": 0.5}, "resuls.threshold: predict has no such setting; did you mean results.threshold"),
        ({"results.threshold": "0.5"}, "results.threshold=0.5: give a number, or null"),
        ({"results.threshold": 1j}, "results.threshold is a complex; give text, a number"),
        ({"data.chunk_length": "300"}, "data.chunk_length=300: give a whole number"),
        ({"data.num_workers": True}, "data.num_workers=true: give a whole number"),
        ({"data.token_budget": "auto"}, "data.token_budget=auto: only the command line finds one"),
        ({"model.head": "x.pth"}, "model.head=x.pth: a group of settings"),
        ({"model.head.weights": [1]}, "model.head.weights=[1]: give text"),
        ({"model": "demo"}, "model is an argument of its own"),
        ({"offline": "yes"}, "offline=yes: give true or false"),
        ({"trainer.precision": "x"}, "trainer.precision=x: give 32-true"),
        ({"+trainer.max_time": 1}, "+trainer.max_time: predict has no such setting"),
        ({5: 1}, "the name 5 is a int"),
        (["results.threshold=0.5"], "settings is a list; give a mapping"),
        ([], "settings is a list; give a mapping"),
        ("results.threshold=0.5", "settings is a str; give a mapping"),
        ({"output": "x"}, "output has no effect in Python"),
        ({"formats.bed": True}, "formats.bed has no effect in Python"),
        ({"data.embedding_cache": "cache"}, "data.embedding_cache has no effect in Python"),
        ({"overwrite": True}, "overwrite has no effect in Python"),
        ({"threads": 2}, "threads has no effect in Python"),
        ({"callbacks.progress": None}, "callbacks.progress has no effect in Python"),
    ],
    ids=str,
)
def test_settings_in_python_are_checked(settings: Any, told: str) -> None:
    given = {**CPU, **settings} if isinstance(settings, dict) else settings
    for call in (lambda: predict(READS, settings=given), lambda: Predictor("demo", given)):
        with pytest.raises(UserError) as error:
            call()
        assert told in str(error.value)
        assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_numbers() -> None:
    threshold = torch.tensor(0.7).numpy()[()]
    assert Predictor("demo", {**CPU, "results.threshold": threshold}).predict(READS).num_rows == 1


def test_a_model_is_named_by_text() -> None:
    with pytest.raises(UserError, match="model is a int; give the name"):
        Predictor(5, CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sequences", "told"),
    [
        ({"n" * 2_000_000: "ACGT"}, "sequences: damaged FASTA: a header of more than 1 MiB"),
        ({"a": "EFILPQ" * 50}, "sequences: 300 of 300 letters"),
    ],
    ids=["header", "letters"],
)
def test_errors_in_python_name_no_file_of_ours(sequences: dict[str, str], told: str) -> None:
    with pytest.raises(UserError) as error:
        predict(sequences, settings=CPU)
    assert str(error.value).startswith(told)
