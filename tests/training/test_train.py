"""Training heads from the command line: what comes out, what is resumed, what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer, seed_everything

from support import FAST_TRAINING, Result, make_unfinished
from virnucpro_pl.data.embeddings import Embeddings
from virnucpro_pl.models.head import Head
from virnucpro_pl.models.weights.checkpoints import read_file
from virnucpro_pl.models.weights.head_bundle import read_head_info
from virnucpro_pl.training.batches import EmbeddedOrfs, EpochBatches
from virnucpro_pl.training.datamodule import LabelledOrfs
from virnucpro_pl.training.labelled_store import LabelledStore
from virnucpro_pl.training.module import HeadTraining
from virnucpro_pl.training.splits import TRAIN

Cli = Callable[..., Result]


def history(folder: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((folder / "run.json").read_text())["history"]
    return found


# --- embed


def test_embeddings_are_those_of_predict_and_kept_for_it(cli: Cli, dataset: Path, embeddings: Path, tmp_path) -> None:
    store, found = LabelledStore(dataset), Embeddings(embeddings)
    assert found.num_orfs == store.num_orfs
    rows = np.arange(store.num_orfs)
    both = found.take(rows)
    assert both.shape == (store.num_orfs, found.width("both"))
    assert (found.take(rows[::-1], "protein") == both[::-1, found.width("dna") :]).all()
    half = tmp_path / "half"
    assert cli("embed", f"input={dataset}", f"output={half}", "dtype=float16", "model.inputs=dna").code == 0
    dna = Embeddings(half)
    assert dna.inputs == "dna"
    assert np.abs(dna.take(rows, "dna") - both[:, : found.width("dna")]).max() < 2e-3
    assert "ESM-2" not in json.loads((half / "run.json").read_text())["figures"]["encoders"]
    shards = f"data.embedding_cache={embeddings / 'shards'}"
    assert cli("predict", f"input={dataset}", f"output={tmp_path / 'out'}", shards).code == 0
    encoders = json.loads((tmp_path / "out" / "run.json").read_text())["figures"]["encoders"]
    assert {encoder["sequences"] for encoder in encoders.values()} == {0}


def test_a_second_embed_has_nothing_to_do_and_damage_is_told(cli: Cli, dataset, embeddings, tmp_path, train) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(embeddings, copy)
    assert "nothing to do" in cli("embed", f"input={dataset}", f"output={copy}", "trainer.accelerator=cpu").err
    shard = min((copy / "shards").glob("*/*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    result = train(f"embeddings={copy}")
    assert result.code == 2
    assert "damaged" in result.err


# --- train


def test_a_head_is_trained_tested_and_used(cli: Cli, train, dataset: Path, embeddings: Path, tmp_path: Path) -> None:
    result = train(epochs=12)
    assert result.code == 0, result.err
    folder = tmp_path / "head"
    run = json.loads((folder / "run.json").read_text())
    assert run["figures"]["val_average_precision"] > 0.75  # the classes differ in composition
    assert run["figures"]["val_loss"] == min(row["val_loss"] for row in run["history"])
    assert (folder / "training.png").read_bytes().startswith(b"\x89PNG")
    assert "val_average_precision" in next(folder.glob("csv/*/metrics.csv")).read_text().splitlines()[0]
    info = read_head_info(read_file(folder / "head.safetensors"), folder)
    assert info is not None
    assert info.chunk_lengths == (100, 100)
    assert json.loads((folder / "head.json").read_text())["encoders"]["dna_encoder"]["width"] == 64

    words = (f"input={dataset}", f"embeddings={embeddings}", f"model.head.weights={folder / 'head.safetensors'}")
    computing = cli("test", words[0], words[2], f"output={tmp_path / 'computed'}", "resamples=50")
    assert computing.code == 0, computing.err
    assert not (tmp_path / "computed" / ".work").exists()
    tested = cli("test", *words, f"output={tmp_path / 'test'}", "resamples=50", "threshold.precision=0.8")
    assert tested.code == 0, tested.err
    metrics = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert metrics["overall"]["auroc"] > 0.75
    assert metrics["overall"]["intervals"]["auroc"][0] <= metrics["overall"]["auroc"]
    assert {path.name for path in (tmp_path / "test").glob("*.png")} >= {"roc.png", "calibration.png"}
    groups = {row["group"] for row in metrics["by_group"]}
    assert groups == set(json.loads((folder / "split.json").read_text())["groups"]["test"])
    final = read_head_info(read_file(tmp_path / "test" / "head.safetensors"), folder)
    assert final is not None
    assert final.threshold == metrics["threshold"] != 0.5
    assert list(final.tested) == ["100"]

    head = f"model.head.weights={tmp_path / 'test' / 'head.safetensors'}"
    refused = cli("predict", f"output={tmp_path / 'p'}", head)
    assert refused.code == 2
    assert "trained on chunks of 100 nt" in refused.err
    used = cli("predict", f"output={tmp_path / 'p'}", head, "data.chunk_length=100", "trainer.accelerator=cpu")
    assert used.code == 0, used.err
    assert json.loads((tmp_path / "p" / "run.json").read_text())["identity"]["results.threshold"] == final.threshold
    assert f"from a score of {final.threshold:.4f} on" in used.err


def test_the_same_seed_gives_the_same_head_and_resuming_changes_nothing(train, tmp_path: Path) -> None:
    step = "scheduler.step_size=1"
    assert train(step, output="whole", epochs=4).code == 0
    assert train(step, output="stopped", epochs=2).code == 0
    make_unfinished(
        tmp_path / "stopped", **{"trainer.max_epochs": 4}
    )  # as if it had been killed after the second epoch
    resumed = train(step, output="stopped", epochs=4)
    assert "Resuming from" in resumed.err
    assert history(tmp_path / "stopped") == history(tmp_path / "whole")
    tensors = [read_file(tmp_path / name / "head.safetensors").tensors for name in ("whole", "stopped")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert train(step, output="other", epochs=4).code == 0
    assert history(tmp_path / "other") == history(tmp_path / "whole")
    assert train(step, "seed=1", output="seed", epochs=1).code == 0
    assert history(tmp_path / "seed")[0]["val_loss"] != history(tmp_path / "whole")[0]["val_loss"]


def test_another_run_is_refused(train, tmp_path: Path) -> None:
    assert train(epochs=1).code == 0
    assert "nothing to do" in train(epochs=1).err
    refused = train("batch_size=8", epochs=1)
    assert refused.code == 2
    assert "batch_size=16 there, 8 here" in refused.err


def test_a_dna_head_never_loads_esm2(cli: Cli, train, tmp_path: Path) -> None:
    absent = "model.protein_encoder.weights=/nowhere/esm2.pt"
    assert train("model.inputs=dna", absent, epochs=1).code == 0
    head = f"model.head.weights={tmp_path / 'head' / 'head.safetensors'}"
    result = cli(
        "predict", f"output={tmp_path / 'p'}", head, absent, "data.chunk_length=100", "trainer.accelerator=cpu"
    )
    assert result.code == 0, result.err
    assert list(json.loads((tmp_path / "p" / "run.json").read_text())["figures"]["encoders"]) == ["DNABERT-S"]
    assert "takes dna embeddings only" in cli("export", head, f"output={tmp_path / 'x.pth'}").err


def test_overfitting_32_examples(dataset: Path, embeddings: Path) -> None:
    store, found = LabelledStore(dataset), Embeddings(embeddings)
    labels = store.labels[store.orf_records]
    chosen = np.concatenate([np.flatnonzero(labels == label)[:16] for label in (0, 1)])
    examples = [(torch.from_numpy(found.take(chosen)), torch.from_numpy(labels[chosen].astype(np.int64)))]
    seed_everything(0, verbose=False)
    parts = np.full(len(labels), -1, dtype=np.int8)
    parts[chosen] = TRAIN
    validation = parts.copy()
    data = LabelledOrfs(EmbeddedOrfs(found, labels, "both"), validation, 32, seed=0)
    module = HeadTraining(Head(found.width("both"), 64, dropout=0.0), lambda groups: torch.optim.AdamW(groups, lr=0.01))
    trainer = Trainer(
        max_epochs=60, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, use_distributed_sampler=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert float(trainer.callback_metrics["train_loss"]) < 0.02
    assert (module.eval().head(examples[0][0]).argmax(dim=1) == examples[0][1]).all()


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_encoders_learn_and_are_written_in_the_published_formats(cli: Cli, dataset, tmp_path, mode: str) -> None:
    words = (f"input={dataset}", f"output={tmp_path / 'head'}", *FAST_TRAINING, "trainer.max_epochs=1", "batch_size=64")
    result = cli("train", *words, f"fine_tuning={mode}", "fine_tuning.lr=0.001")
    assert result.code == 0, result.err
    head, dna = tmp_path / "head" / "head.safetensors", tmp_path / "head" / "dna_encoder"
    use = ("predict", f"output={tmp_path / 'p'}", f"model.head.weights={head}", "data.chunk_length=100")
    refused = cli(*use)
    assert refused.code == 2
    assert "was trained with another dna_encoder" in refused.err
    protein = tmp_path / "head" / "protein_encoder.pt"
    used = cli(*use, f"model.dna_encoder.weights={dna}", f"model.protein_encoder.weights={protein}")
    assert used.code == 0, used.err
    told = cli(*use, "model.head.any_encoder=true", "overwrite=true")
    assert told.code == 0
    assert "scores mean nothing" in told.err


def test_a_sweep_ends_in_a_table_of_average_precisions(train, tmp_path: Path) -> None:
    result = train("-m", "model.head.hidden_dim=8,16", output="sweep", epochs=1)
    assert result.code == 0, result.err
    lines = (tmp_path / "sweep" / "sweep.tsv").read_text().splitlines()
    assert lines[0].split("\t")[:3] == ["job", "overrides", "val_average_precision"]
    assert [line.split("\t")[1] for line in lines[1:]] == ["model.head.hidden_dim=8", "model.head.hidden_dim=16"]
    best = max(float(line.split("\t")[2]) for line in lines[1:])
    assert f"{best:.4f} average precision" in result.err


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("class_weights=[1]", "class_weights=[1]"),
        ("batch_size=1", "batch_size=1: give 2 or more, as batch normalisation needs"),
        ("model.head.hidden_dim=0", "model.head.hidden_dim=0"),
        ("model.head.dropout=1", "model.head.dropout=1"),
        ("model=virnucpro_300", "made by model demo, not virnucpro_300"),
        ("model.head.weights=/nowhere/head.pth", "head.pth"),
        ("fine_tuning=full model.fp8=true", "for prediction only"),
        ("split.by=planet", "no such column"),
    ],
)
def test_mistakes_are_one_line(train, override: str, told: str) -> None:
    result = train(*override.split())
    assert result.code == 2
    (line,) = [line for line in result.err.splitlines() if line.startswith("Error")]
    assert told in line


def test_embeddings_of_another_dataset_are_refused(cli: Cli, train, fasta, tmp_path: Path) -> None:
    other = fasta(("x", "ATGGCCGCCGCCGCCGCCGCC"))
    assert cli("embed", f"input={other}", f"output={tmp_path / 'e'}", "trainer.accelerator=cpu").code == 0
    assert "of another dataset" in train(f"embeddings={tmp_path / 'e'}").err
    assert "holds no embeddings" in train(f"embeddings={tmp_path}").err


def test_a_loss_that_is_no_number_stops_the_training(train) -> None:
    result = train("optimizer=sgd", "optimizer.lr=1e30", epochs=5)
    assert result.code == 2
    assert "loss is nan in epoch" in result.err or "loss is inf in epoch" in result.err


# --- the order of examples


def test_every_epoch_has_all_rows_once_in_another_order_and_none_alone() -> None:
    rows = np.arange(100, 133)
    batches = EpochBatches(rows, 8, seed=1)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        epochs.append([batch.tolist() for batch in batches])
        assert len(epochs[-1]) == len(batches) == 4  # the 33rd row would be alone
        assert min(map(len, epochs[-1])) == 8
    assert epochs[0] == epochs[2] != epochs[1]
    seen = [row for batch in epochs[0] for row in batch]
    assert len(set(seen)) == len(seen) == 32
    assert [row for batch in EpochBatches(rows, 8) for row in batch.tolist()] == rows.tolist()
    shares = [EpochBatches(rows, 4, seed=1, rank=rank, num_ranks=3) for rank in range(3)]
    assert {len(share) for share in shares} == {2}
    together = [row for share in shares for batch in share for row in batch.tolist()]
    assert len(set(together)) == 24
