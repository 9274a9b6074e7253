"""Calls in less than float32, level by level, and the company a sequence is scored in."""

import gzip
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from support import MINI, Result, load_safely, model_overrides, run_here
from virnucpro_pl.files.output_files import ORF_TABLE, RECORD_TABLE

# precision: largest change of a score, smallest share of ORFs called alike
LIMITS = {"16-true": (0.003, 0.998), "bf16-true": (0.02, 0.995)}


def read_table(path: Path) -> list[dict[str, str]]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


class Calls:
    """What one run called, at every level."""

    def __init__(self, folder: Path):
        orfs = read_table(folder / ORF_TABLE)
        self.scores = {row["Sequence_ID"]: float(row["score2"]) for row in orfs}
        self.orfs = {row["Sequence_ID"]: row["Prediction"] for row in orfs}
        chunks = pq.read_table(folder / "predictions.parquet").to_pylist()
        self.chunks = {chunk["chunk_id"]: chunk["call"] for chunk in chunks}
        self.records = {row["sequence_id"]: row["call"] for row in read_table(folder / RECORD_TABLE)}

    def score_changes(self, other: "Calls") -> np.ndarray:
        assert list(self.scores) == list(other.scores)
        return np.abs(np.array(list(self.scores.values())) - np.array(list(other.scores.values())))


def flipped(one: dict[str, str], two: dict[str, str]) -> set[str]:
    assert list(one) == list(two)
    return {name for name in one if one[name] != two[name]}


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Calls]:
    """Two thousand ORFs of the packaged sample, by the demo model in a given precision."""

    @cache
    def run(precision: str) -> Calls:
        output = tmp_path_factory.mktemp(precision)
        words = [f"trainer.precision={precision}", "data.chunk_length=100", "model.head.any_chunk_length=true"]
        assert run_here("predict", f"output={output}", "trainer.accelerator=cpu", *words) == 0
        return Calls(output)

    return run


@pytest.mark.parametrize("precision", LIMITS)
def test_calls_in_half_precision_agree_at_every_level(calls: Callable[[str], Calls], precision: str) -> None:
    """A call may turn only where it was a near tie, and a record only with a chunk of its own."""
    exact, half = calls("32-true"), calls(precision)
    largest_change, agreement = LIMITS[precision]
    assert len(exact.orfs) > 2000
    changes = exact.score_changes(half)
    assert 0 < changes.max() < largest_change

    orfs = flipped(exact.orfs, half.orfs)
    assert 1 - len(orfs) / len(exact.orfs) >= agreement
    for orf in orfs:
        assert abs(exact.scores[orf] - 0.5) < largest_change
    chunks = flipped(exact.chunks, half.chunks)
    assert 1 - len(chunks) / len(exact.chunks) >= agreement
    for chunk in chunks:  # its highest and its lowest virus score decide
        scores = [score for orf, score in exact.scores.items() if orf[:-2] == chunk]
        assert abs((max(scores) + min(scores)) / 2 - 0.5) < largest_change
    records = flipped(exact.records, half.records)
    assert records <= {chunk.rpartition("_chunk_")[0] for chunk in chunks}
    assert 1 - len(records) / len(exact.records) >= agreement


@pytest.mark.parametrize(("precision", "largest_change"), [("32-true", 1e-5), ("16-true", 2e-3), ("bf16-true", 1e-2)])
def test_neighbours_change_no_score(
    cli: Callable[..., Result], mini: Path, tmp_path: Path, precision: str, largest_change: float
) -> None:
    """Other records, in another order, in other batches: the same scores for the same sequences."""
    records = [f">{entry}" for entry in (mini / "inputs" / "mini.fa").read_text().split(">")[1:]]
    letters = np.random.default_rng(3).choice(list("ACGT"), (150, 90))
    others = [f">other_{number}\n{''.join(row)}\n" for number, row in enumerate(letters)]
    found = []
    for number, (text, token_budget) in enumerate([(records, 10**6), ([*others, *records[::-1]], 500)]):
        path, output = tmp_path / f"{number}.fa", tmp_path / str(number)
        path.write_text("".join(text))
        words = [f"input={path}", f"output={output}", f"data.token_budget={token_budget}", "trainer.accelerator=cpu"]
        result = cli("predict", *words, f"trainer.precision={precision}", *model_overrides(mini))
        assert result.code == 0, result.err
        found.append(Calls(output).scores)
    alone, among_others = found
    assert len(among_others) > 2 * len(alone) > 100
    for orf, score in alone.items():
        assert among_others[orf] == pytest.approx(score, abs=largest_change), orf


def test_scores_that_are_no_numbers_stop_the_run(cli: Callable[..., Result], tmp_path: Path) -> None:
    """Activations beyond float16: no result file of half precision, the usual ones of float32."""
    source = MINI / "models" / "esm" / "esm2_t2_mini_UR50D.pt"
    checkpoint = load_safely(source)
    for name in [name for name in checkpoint["model"] if name.endswith(("fc1.weight", "fc2.weight"))]:
        checkpoint["model"][name] = checkpoint["model"][name].float() * 1e4
    torch.save(checkpoint, tmp_path / "esm2_large.pt")
    command = ["predict", f"input={MINI / 'inputs' / 'mini.fa'}", *model_overrides(MINI), "trainer.accelerator=cpu"]
    command += [f"model.protein_encoder.weights={tmp_path / 'esm2_large.pt'}", f"output={tmp_path / 'out'}"]

    failed = cli(*command, "trainer.precision=16-true")
    assert failed.code == 1
    assert "some scores are NaN or infinite; start over with trainer.precision=32-true overwrite=true" in failed.err
    assert not (tmp_path / "out" / ORF_TABLE).exists()
    assert cli(*command, "trainer.precision=32-true", "overwrite=true").code == 0


def test_packaged_sample_is_real(calls: Callable[[str], Calls]) -> None:
    """The agreement above is measured on both kinds of records."""
    from virnucpro_pl.configuration.hydra_config import PACKAGE

    sample = gzip.decompress((PACKAGE / "demo" / "sample.fasta.gz").read_bytes()).decode()
    assert len(calls("32-true").records) == sample.count(">")
    assert {"virus", "others"} <= set(calls("32-true").records.values())
