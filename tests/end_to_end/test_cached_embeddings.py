"""``data.embedding_cache`` as a user of ``predict`` sees it: the same files, and less to compute."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from support import Result, load_safely, synonymous_reads
from virnucpro_pl.callbacks.embedding_cache import EmbeddingCaching
from virnucpro_pl.data import embedding_cache
from virnucpro_pl.data.batch import CachedEmbeddings, OrfBatch
from virnucpro_pl.data.embedding_cache import EncoderFingerprints, content_keys, open_caches
from virnucpro_pl.data.packed import pack
from virnucpro_pl.files.output_files import RESULT_FILES
from virnucpro_pl.models.virnucpro import ScoredOrfs, VirNucPro
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.models.weights.sources import DnabertSSource, Esm2Source

ENCODERS = "DNABERT-S", "ESM-2"


class Runs:
    """Runs ``predict`` with one cache and tells what was found in it and what was computed."""

    def __init__(self, cli: Callable[..., Result], folder: Path, overrides: list[str]):
        self.cli = cli
        self.folder = folder
        self.cache = folder / "cache"
        self.overrides = overrides
        self.result: Result
        self.run: dict

    def arguments(self, reads: Path, *more: object) -> list[str]:
        settings = [f"input={reads}", f"output={self.folder / 'out'}", f"data.embedding_cache={self.cache}"]
        settings += ["data.token_budget=500", "overwrite=true", "trainer.accelerator=cpu"]
        return ["predict", *settings, *self.overrides, *map(str, more)]

    def __call__(self, reads: Path, *more: object) -> dict[str, bytes]:
        """Run, and return the result files."""
        self.result = self.cli(*self.arguments(reads, *more))
        assert self.result.code == 0, self.result.err
        self.run = json.loads((self.folder / "out" / "run.json").read_text())
        return {name: (self.folder / "out" / name).read_bytes() for name in RESULT_FILES}

    @property
    def computed(self) -> list[int]:
        return [self.run["figures"]["encoders"][name]["sequences"] for name in ENCODERS]

    @property
    def found(self) -> list[int]:
        return [self.run["figures"]["encoders"][name]["cached"] for name in ENCODERS]

    def shards(self) -> list[Path]:
        return sorted(self.cache.glob("*/*.arrow"))


@pytest.fixture
def runs(cli: Callable[..., Result], tmp_path: Path, mini_overrides: list[str]) -> Runs:
    return Runs(cli, tmp_path, mini_overrides)


@pytest.fixture
def reads(tmp_path: Path) -> Path:
    path = tmp_path / "reads.fasta"
    path.write_text(synonymous_reads(seed=7, num_proteins=6))
    return path


def half_of(reads: Path) -> Path:
    """The first half of the records, in a file of its own."""
    records = reads.read_text().split(">")[1:]
    half = reads.with_name("half.fasta")
    half.write_text("".join(f">{record}" for record in records[: len(records) // 2]))
    return half


@pytest.mark.parametrize("precision", ["32-true", "16-true"])
def test_a_second_run_computes_nothing_and_writes_the_same_bytes(runs: Runs, reads: Path, precision: str) -> None:
    without = runs(reads, "data.embedding_cache=", f"trainer.precision={precision}")
    assert "embedding cache" not in runs.result.err
    assert not runs.cache.exists()

    first = runs(reads, f"trainer.precision={precision}")
    computed = runs.computed
    assert runs.found == [0, 0]
    assert min(computed) > 50

    second = runs(reads, f"trainer.precision={precision}", "data.num_workers=1")
    assert (runs.computed, runs.found) == ([0, 0], computed)
    assert without == first == second
    for name, count in zip(ENCODERS, computed, strict=True):
        assert f"{count:,} of {count:,} sequences for {name}" in runs.result.err


def test_encoders_are_not_read_when_nothing_is_left_for_them(
    runs: Runs, reads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = runs(reads)
    read = []
    for source in (DnabertSSource, Esm2Source):
        load = source.load
        monkeypatch.setattr(source, "load", lambda self, load=load: read.append(self.key) or load(self))

    assert runs(reads) == first
    assert read == []
    for path in (runs.cache / protein_folder(runs.cache)).glob("*.arrow"):
        path.unlink()
    assert runs(reads) == first
    assert read == ["model.protein_encoder"]
    assert runs.computed[0] == 0 < runs.computed[1]


def protein_folder(cache: Path) -> str:
    (folder,) = [path.parent.name for path in cache.glob("*/encoder.json") if '"ESM-2"' in path.read_text()]
    return folder


def test_overlapping_input_computes_only_what_is_new(runs: Runs, reads: Path) -> None:
    whole = runs(reads, "data.embedding_cache=")
    everything = runs.computed
    runs(half_of(reads))
    before = runs.computed

    assert runs(reads) == whole
    assert runs.found == before
    assert runs.computed == [every - half for every, half in zip(everything, before, strict=True)]
    assert all(0 < new < every for new, every in zip(runs.computed, everything, strict=True))

    runs(reads)
    assert runs.computed == [0, 0], "what was new is there as well"


def test_another_head_needs_no_encoder(runs: Runs, reads: Path, mini: Path) -> None:
    first = runs(reads)
    other = f"model.head.weights={mini / 'models' / 'mlp' / '500_model.pth'}"
    cached = runs(reads, other, "model.head.any_chunk_length=true")

    assert runs.computed == [0, 0]
    assert cached != first
    assert cached == runs(reads, other, "model.head.any_chunk_length=true", "data.embedding_cache=")


def test_a_head_that_does_not_fit_cached_embeddings_is_refused(runs: Runs, reads: Path, golden: Path) -> None:
    runs(reads)
    wide = f"model.head.weights={golden / 'models' / 'mlp' / '300_model.pth'}"
    result = runs.cli(*runs.arguments(reads, wide))

    assert result.code == 2
    assert "takes 128 numbers, but the encoders give 48 (DNA) + 32 (protein) = 80" in result.err


def test_other_precision_is_not_mixed_in(runs: Runs, reads: Path) -> None:
    runs(reads)
    runs(reads, "trainer.precision=bf16-true")
    assert runs.found == [0, 0]


def test_weights_are_told_by_what_is_in_them(runs: Runs, reads: Path, mini: Path, tmp_path: Path) -> None:
    source = mini / "models" / "esm" / "esm2_t2_mini_UR50D.pt"
    copy = tmp_path / "renamed.pt"
    copy.write_bytes(source.read_bytes())
    runs(reads)

    runs(reads, f"model.protein_encoder.weights={copy}")
    assert runs.computed == [0, 0], "the same weights elsewhere"

    content = load_safely(source)
    content["model"]["encoder.sentence_encoder.layers.0.fc1.bias"] += 1
    torch.save(content, copy)
    runs(reads, f"model.protein_encoder.weights={copy}")
    assert runs.found[1] == 0 < runs.computed[1]
    assert runs.computed[0] == 0, "the other encoder is the same"


def cut_short(content: bytes) -> bytes:
    return content[:-100]


def with_other_bits_in_the_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 1 for byte in content[middle : middle + 64]) + content[middle + 64 :]


@pytest.mark.parametrize("damage", [cut_short, with_other_bits_in_the_middle])
def test_a_damaged_shard_is_computed_again(runs: Runs, reads: Path, damage: Callable[[bytes], bytes]) -> None:
    first = runs(reads)
    for path in runs.shards():
        path.write_bytes(damage(path.read_bytes()))

    assert runs(reads) == first
    assert min(runs.computed) > 0
    assert runs.result.err.count("set aside") == 2
    assert runs(reads) == first
    assert "set aside" not in runs.result.err
    runs(reads)
    assert runs.computed == [0, 0]


def test_a_killed_run_leaves_its_embeddings(runs: Runs, reads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = VirNucPro.predict_step

    def fails_late(self, batch, batch_idx):
        if batch_idx == 4:
            raise RuntimeError("power cut")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(VirNucPro, "predict_step", fails_late)
        assert runs.cli(*runs.arguments(reads, "callbacks.embedding_cache.max_bytes=1")).code == 1
    assert len(runs.shards()) >= 4
    runs.folder = runs.folder / "elsewhere"
    runs(reads)
    assert min(runs.found) > 0


def test_shards_are_as_large_as_asked(runs: Runs, reads: Path) -> None:
    runs(reads)
    assert len(runs.shards()) == 2
    runs(reads, "data.deduplicate=false", f"data.embedding_cache={runs.folder / 'other'}",
         "callbacks.embedding_cache.max_bytes=1")  # fmt: skip
    assert len(list((runs.folder / "other").glob("*/*.arrow"))) == 2 * runs.run["figures"]["batches"]


def test_without_the_callback_a_cache_is_only_read(runs: Runs, reads: Path) -> None:
    runs(half_of(reads))
    before = runs.shards()
    runs(reads, "~callbacks.embedding_cache")
    assert min(runs.found) > 0
    assert runs.shards() == before


def test_a_folder_that_cannot_be_made_is_refused(runs: Runs, reads: Path) -> None:
    runs.cache.write_text("a file")
    result = runs.cli(*runs.arguments(reads))

    assert result.code == 2
    (line,) = [line for line in result.err.splitlines() if line.startswith("Error: ")]
    assert f"data.embedding_cache={runs.cache}" in line


def test_a_full_disk_costs_the_cache_and_not_the_run(runs: Runs, reads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system is what cannot be had here, so the write fails as it would."""
    without = runs(reads, "data.embedding_cache=")

    def full(folder, *_):
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(embedding_cache, "write_shard", full)
    assert runs(reads, "callbacks.embedding_cache.max_bytes=1") == without
    assert len(re.findall("New embeddings are no longer cached: .*No space left on device", runs.result.err)) == 1


def test_embeddings_that_are_no_numbers_are_not_kept(tmp_path: Path) -> None:
    """Float16 can overflow; the run then stops, and its remains must not be found by the next."""
    model = VirNucPro(DnabertSSource(""), Esm2Source(""), HeadSource(""), name="test")
    caches = open_caches(tmp_path, EncoderFingerprints("dna", "protein"))
    trainer = SimpleNamespace(datamodule=SimpleNamespace(caches=caches))
    keys = content_keys([b"A", b"C", b"G"])
    dna, protein = torch.ones(3, 4), torch.ones(3, 5)
    dna[1, 2], protein[2, 0] = torch.nan, torch.inf
    batch = OrfBatch(0, torch.arange(3), pack([]), torch.arange(3), pack([]), torch.arange(3),
                     CachedEmbeddings(None, None, keys, keys))  # fmt: skip

    callback = EmbeddingCaching(max_bytes=1)
    callback.setup(trainer, model, "predict")
    scored = ScoredOrfs.to_host(0, torch.arange(3), torch.ones(3, 2), (dna, protein))
    callback.on_predict_batch_end(trainer, model, scored, batch, 0)
    callback.on_predict_end(trainer, model)
    callback.teardown(trainer, model, "predict")

    found = [cache.find(keys)[0].tolist() for cache in open_caches(tmp_path, EncoderFingerprints("dna", "protein"))]
    assert found == [[True, False, True], [True, True, False]]


def test_two_runs_and_two_ranks_write_at_once(runs: Runs, reads: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    reversed_reads = tmp_path / "reversed.fasta"
    reversed_reads.write_text("".join(f">{record}" for record in reads.read_text().split(">")[:0:-1]))
    starts = []
    for number, path in enumerate((reads, reversed_reads)):
        ranks = ("trainer.devices=2", "trainer.strategy=ddp") if number else ()
        arguments = runs.arguments(path, f"output={tmp_path / str(number)}", "callbacks.embedding_cache.max_bytes=1")
        command = [sys.executable, "-m", "virnucpro_pl", *arguments, *ranks]
        starts.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
    for start in starts:
        _, told = start.communicate(timeout=500)
        assert start.returncode == 0, told

    without = runs(reads, "data.embedding_cache=")
    assert {name: (tmp_path / "0" / name).read_bytes() for name in RESULT_FILES} == without
    assert runs(reads) == without
    assert runs.computed == [0, 0]
