"""Reads a head does not know, chunks without an open frame, and thresholds other than the published one."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from support import CHECKOUT, Result, open_genome
from virnucpro_pl.models.head import Head
from virnucpro_pl.models.weights.checkpoints import read_file
from virnucpro_pl.models.weights.head_bundle import HeadInfo, read_head_info, write_head
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.results.consensus import OTHERS, VIRUS, CallingRules, call_chunks

Cli = Callable[..., Result]
DEMO = CHECKOUT / "src" / "virnucpro_pl" / "demo" / "head.safetensors"
STOPS = "TAACTAACTAACTAAGTTAGTTAGTTAGTTAACTAACTAACTAAG"  # in all six frames


def demo_info() -> HeadInfo:
    info = read_head_info(read_file(DEMO), DEMO)
    assert info is not None
    return info


def rows(folder: Path) -> dict[str, dict[str, str]]:
    header, *lines = (folder / "sequences.tsv").read_text().splitlines()
    cells = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    return {row["sequence_id"]: row for row in cells}


@pytest.fixture
def reads(fasta: Callable[..., Path]) -> Path:
    rng = np.random.default_rng(0)
    short, long, closed = open_genome(rng, 85), open_genome(rng, 400), STOPS * 4
    return fasta(("short", short), ("long", long), ("closed", closed), ("both", closed + "GCC" * 60))


def test_records_too_short_for_the_head_are_marked(cli: Cli, reads: Path, tmp_path: Path, mini: Path) -> None:
    """The demo head knows 150 to 500 nt, so 90 is the limit; a published head of 300 nt has 180."""
    result = cli("predict", f"input={reads}", f"output={tmp_path / 'demo'}", "data.chunk_length=300")
    assert result.code == 0, result.err
    assert {name: row["out_of_domain"] for name, row in rows(tmp_path / "demo").items()} == {
        "short": "yes", "long": "no", "closed": "no", "both": "no"
    }  # fmt: skip
    assert "1 of 4 records are shorter than 90 nt" in result.err
    assert json.loads((tmp_path / "demo" / "run.json").read_text())["counts"]["calls"]["out_of_domain"] == 1
    assert HeadSource(str(mini / "models" / "mlp" / "300_model.pth")).domain_length() == 180


def test_lengths_a_head_was_tested_at_are_known_to_it(cli: Cli, reads: Path, tmp_path: Path) -> None:
    write_head(tmp_path, HeadSource(str(DEMO)).load(), replace(demo_info(), tested={"100": {"auroc": 0.5}}))
    head = f"model.head.weights={tmp_path / 'head.safetensors'}"
    assert cli("predict", f"input={reads}", f"output={tmp_path / 'out'}", head).code == 0
    assert rows(tmp_path / "out")["short"]["out_of_domain"] == "no"


def test_chunks_without_an_open_frame_are_called_by_a_head_on_dna(cli: Cli, reads: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = Head(64, 8)
    head.output_layer.bias.data = torch.tensor([-9.0, 9.0])  # calls everything viral
    info = demo_info()
    dna = {"dna_encoder": info.encoders["dna_encoder"]}
    write_head(tmp_path, head, replace(info, inputs="dna", encoders=dna, data={"rule": "chunks"}))
    plain, helped = tmp_path / "plain", tmp_path / "helped"
    assert cli("predict", f"input={reads}", f"output={plain}").code == 0
    fallback = f"model.fallback_head={tmp_path / 'head.safetensors'}"
    result = cli("predict", f"input={reads}", f"output={helped}", fallback)
    assert result.code == 0, result.err
    checked = cli("verify", f"output={helped}")
    assert checked.code == 0, checked.err
    before, after = rows(plain), rows(helped)
    assert (before["closed"]["status"], before["closed"]["call"]) == ("no_orf", "NA")
    assert (after["closed"]["status"], after["closed"]["call"]) == ("dna_only", "virus")
    assert (after["closed"]["orfs"], after["closed"]["called_chunks"], after["closed"]["dna_only_chunks"]) == (
        "0",
        "1",
        "1",
    )
    assert after["long"] == before["long"]
    assert int(after["both"]["called_chunks"]) == int(after["both"]["chunks"])
    for name in ("prediction_results.txt", "prediction_results_highestscore.csv"):
        assert (helped / name).read_bytes() == (plain / name).read_bytes()
    chunks = pq.read_table(helped / "predictions.parquet").to_pylist()
    (closed,) = (chunk for chunk in chunks if chunk["sequence_id"] == "closed")
    assert closed["call"] == "virus"
    assert closed["max_virus_score"] > 0.99
    assert {closed[f"virus_score_{frame}"] for frame in ("F1", "F2", "F3", "R1", "R2", "R3")} == {None}
    counts = json.loads((helped / "run.json").read_text())["counts"]
    assert counts["record_status"]["dna_only"] == 1
    assert counts["orfs"] == json.loads((plain / "run.json").read_text())["counts"]["orfs"]
    refused = cli("predict", f"input={reads}", f"output={tmp_path / 'x'}", f"model.fallback_head={DEMO}")
    assert refused.code == 2
    assert "not a head for whole chunks" in refused.err


def test_a_threshold_moves_calls_in_all_tables_and_makes_another_run(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("predict", f"output={out}", "results.threshold=0.7").code == 0
    refused = cli("predict", f"output={out}")
    assert refused.code == 2
    assert "results.threshold=0.7 there, 0.5 here" in refused.err
    orfs = [line.split("\t") for line in (out / "prediction_results.txt").read_text().splitlines()[1:]]
    assert {label for _, label, _, virus in orfs if float(virus) > 0.7} == {"virus"}
    assert {label for _, label, _, virus in orfs if float(virus) <= 0.7} == {"others"}
    consensus = [
        line.split("\t") for line in (out / "prediction_results_highestscore.csv").read_text().splitlines()[1:]
    ]
    calls = {chunk["chunk_id"]: chunk["call"] for chunk in pq.read_table(out / "predictions.parquet").to_pylist()}
    assert {name: calls[name] == "virus" for name, *_ in consensus} == {
        name: viral == "True" for name, viral, *_ in consensus
    }
    for value in ("0", "1", "1.5"):
        assert (
            "give a score between 0 and 1"
            in cli("predict", f"output={tmp_path / value}", f"results.threshold={value}").err
        )


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_a_chunk_is_viral_from_the_mean_of_its_highest_and_lowest_score_on(threshold: float) -> None:
    rng = np.random.default_rng(1)
    virus = rng.random((500, 4)).astype(np.float32)
    scores = np.stack([1 - virus.reshape(-1), virus.reshape(-1)], axis=1)
    found = call_chunks(scores, np.full(500, 4), CallingRules(threshold=threshold))
    middle = (virus.max(axis=1) + virus.min(axis=1)) / 2
    clear = np.abs(middle - threshold) > 1e-6
    assert (found.calls[clear] == np.where(middle >= threshold, VIRUS, OTHERS)[clear]).all()
    assert found.viral.tolist() == (virus > threshold).sum(axis=1).tolist()
