"""The benchmark command, as a user runs it, on encoders small enough for the CPU."""

import csv
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from Bio.Seq import Seq
from hydra import compose, initialize_config_dir

from support import CHECKOUT, MINI, Result
from virnucpro_pl import __main__ as program
from virnucpro_pl.benchmarking.rates import matrix_flops_per_token
from virnucpro_pl.benchmarking.synthetic_reads import synthetic_reads
from virnucpro_pl.configuration.hydra_config import build

ARCHITECTURES = sorted(path.stem for path in (CHECKOUT / "conf" / "architecture").glob("*.yaml"))
LITTLE = (
    *("trainer.accelerator=cpu", "reads=6", "encoder_batches=2"),
    *("repeats=1", "matrix_seconds=0.001", "data.token_budget=512"),
)
ENCODERS = ("ESM-2", "DNABERT-S")
Benchmark = Callable[..., Result]


@pytest.fixture
def benchmark(cli: Callable[..., Result]) -> Benchmark:
    return lambda *arguments: cli("benchmark", *LITTLE, *arguments)


def read(folder: Path, **wanted: str) -> list[dict[str, str]]:
    with (folder / "benchmark.csv").open() as stream:
        table = list(csv.DictReader(stream))
    return [row for row in table if all(row[column] == value for column, value in wanted.items())]


def residues_of_all_orfs(length: int, seed: int = 0) -> list[int]:
    """Of every stop-free frame of the six reads, by Biopython; identical ORFs once."""
    found = {}
    for letters in synthetic_reads(6, length, seed):
        for strand in (Seq(letters.tobytes()), Seq(letters.tobytes()).reverse_complement()):
            for offset in range(3):
                codons = strand[offset : offset + (length - offset) // 3 * 3]
                if "*" not in codons.translate():
                    found[str(codons)] = len(codons) // 3
    return list(found.values())


def test_everything_is_measured_and_told(benchmark: Benchmark, tmp_path: Path) -> None:
    result = benchmark(f"output={tmp_path}", "precisions=[32-true,bf16-true,fp8]", "read_lengths=[60,150]")
    assert result.code == 0, result.err
    assert not result.out
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"benchmark.csv", "benchmark.png", "run.json", "run.log"}

    kinds = {(row["part"], row["encoder"]) for row in read(tmp_path)}
    for precision in ("32-true", "bf16-true"):
        assert {(row["part"], row["encoder"]) for row in read(tmp_path, precision=precision)} == kinds
    assert kinds == {
        *((part, encoder) for part in ("matrix products", "encoder", "predict, stage") for encoder in ENCODERS),
        *((part, "both") for part in ("predict", "predict, steady")),
    }
    assert "of matrix rate" in result.err
    assert "fp8 is skipped: not available on cpu" in result.err
    assert "…" not in "".join(line for line in result.err.splitlines() if "virnucpro_pl" in line), "cells are cut"
    run = json.loads((tmp_path / "run.json").read_text())
    assert len(run["measurements"]) == len(read(tmp_path))
    assert run["engine"]["device"].startswith("cpu")
    assert run["config"]["read_lengths"] == [60, 150]


@pytest.mark.parametrize("length", [60, 150])
def test_predict_embeds_every_orf_of_the_reads(benchmark: Benchmark, tmp_path: Path, length: int) -> None:
    assert benchmark(f"output={tmp_path}", f"read_lengths={length}").code == 0
    residues = residues_of_all_orfs(length)
    assert len(residues) >= 6
    [whole], [esm2] = read(tmp_path, part="predict"), read(tmp_path, part="predict, stage", encoder="ESM-2")
    assert int(whole["sequences"]) == len(residues)
    assert int(whole["tokens"]) == int(esm2["tokens"]) == sum(residues) + 2 * len(residues)
    assert float(whole["packing_efficiency"]) == 1
    assert float(esm2["tflops"]) * float(esm2["seconds"]) * 1e12 == pytest.approx(
        sum((n + 2) * (3 * (8 * 64**2 + 4 * 64 * 256) + 3 * 4 * 64 * (n + 2)) for n in residues), rel=1e-5
    )


def test_picture_can_be_opened_and_is_large_enough_to_read(benchmark: Benchmark, tmp_path: Path) -> None:
    assert benchmark(f"output={tmp_path}", "read_lengths=[60,90]").code == 0
    head = (tmp_path / "benchmark.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    assert width > 1200
    assert height > 500


def test_bounds_of_the_samples_are_kept(benchmark: Benchmark, tmp_path: Path) -> None:
    assert benchmark(f"output={tmp_path}", "read_lengths=[60]", "encoder_batches=1").code == 0
    [ours] = read(tmp_path, part="encoder", encoder="ESM-2")
    assert int(ours["tokens"]) <= 512, "one batch"


def test_the_table_goes_to_standard_output(benchmark: Benchmark, tmp_path: Path) -> None:
    result = benchmark("output=-", f"paths.default_output={tmp_path}", "read_lengths=[60]")
    assert result.code == 0
    assert result.out == (tmp_path / "benchmark.csv").read_text()


def test_seed_tokenizer_attention_and_architecture_are_heeded(benchmark: Benchmark, tmp_path: Path) -> None:
    few = ["read_lengths=[90]"]
    tokenizer = f"tokenizer={MINI / 'models' / 'DNABERT-S'}"
    sizes = "architecture.protein_encoder.config.num_layers=1"
    result = benchmark(f"output={tmp_path}", *few, "seed=3", tokenizer, sizes, "model.attention=runs")
    assert result.code == 0, result.err
    assert "ESM-2 by runs" in result.err
    [whole] = read(tmp_path, part="predict")
    residues = residues_of_all_orfs(90, seed=3)
    assert int(whole["tokens"]) == sum(residues) + 2 * len(residues)
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["matrix_flops_per_token"]["ESM-2"] == 8 * 64**2 + 4 * 64 * 256
    [theirs] = read(tmp_path, part="predict, stage", encoder="DNABERT-S")
    assert benchmark(f"output={tmp_path}", *few, "seed=3", "overwrite=true").code == 0
    [packaged] = read(tmp_path, part="predict, stage", encoder="DNABERT-S")
    assert packaged["tokens"] != theirs["tokens"], "two tokenizers cut alike"


def test_results_are_not_replaced_unless_told(benchmark: Benchmark, tmp_path: Path) -> None:
    record = json.dumps({"command": ["virnucpro-pl", "benchmark"], "files": {}})
    (tmp_path / "run.json").write_text(record)
    result = benchmark(f"output={tmp_path}")
    assert result.code == 2
    assert "overwrite=true" in result.err
    assert (tmp_path / "run.json").read_text() == record


@pytest.mark.parametrize(
    ("argument", "word"),
    [
        ("reads=0", "reads=0"),
        ("read_lengths=[]", "read_lengths"),
        ("precisions=[fp4]", "fp4"),
        ("precisions=[fp8]", "none of them is available on cpu"),
        ("trainer.precision=16-true", "precisions=[16-true]"),
        ("model.fp8=true", "precisions=[fp8]"),
        ("model.fp16_accumulation=true", "precisions=[fp16-accumulation]"),
        ("data.token_budget=auto", "give a number"),
        ("baseline_sequences=5", "benchmark has no such setting"),
        ("trainer.devices=2", "one device"),
        ("architecture.dna_encoder.config.vocabulary=9", "vocabulary=512"),
        ("tokenizer=nowhere", "nowhere"),
    ],
)
def test_mistakes_end_in_one_line(benchmark: Benchmark, tmp_path: Path, argument: str, word: str) -> None:
    result = benchmark(f"output={tmp_path}", argument)
    assert result.code == 2
    assert word in result.err
    assert "Traceback" not in result.err


def test_too_large_an_architecture_ends_in_one_line(benchmark: Benchmark, tmp_path: Path) -> None:
    result = benchmark(f"output={tmp_path}", "architecture.dna_encoder.config.ffn_width=10000000000")
    assert result.code == 1
    assert "out of memory on cpu" in result.err
    assert "data.token_budget" in result.err
    assert "Traceback" not in result.err


def test_every_job_of_a_sweep_returns_the_tokens_per_second_of_predict(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virnucpro_pl.commands import benchmark as command

    returned = []
    measure = command.benchmark
    monkeypatch.setattr(command, "benchmark", lambda cfg: returned.append(measure(cfg)) or returned[-1])
    few = ["read_lengths=[60,90]"]
    assert cli("benchmark", "-m", *LITTLE[:1], *LITTLE[2:], *few, f"output={tmp_path}", "reads=2,3").code == 0
    for job, figure in enumerate(returned):
        whole = read(tmp_path / str(job), part="predict")
        tokens, seconds = (sum(float(row[column]) for row in whole) for column in ("tokens", "seconds"))
        assert figure == pytest.approx(tokens / seconds, rel=1e-4)
    assert len(returned) == 2


# As published: layers, width and heads of ESM-2 (Lin et al. 2023).
SIZES = {"3b": (36, 2560, 40), "650m": (33, 1280, 20), "150m": (30, 640, 20), "35m": (12, 480, 20)}
# Weights of the linear layers, from the parameter counts of the checkpoints without embeddings, biases and norms.
WEIGHTS = {"3b": 2_831_155_200, "650m": 648_806_400}
DNABERT_S_WEIGHTS = 113_246_208


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures_are_of_the_published_sizes(architecture: str) -> None:
    program.register_resolvers()
    with initialize_config_dir(str(program.CONF), version_base="1.3"):
        cfg = compose("benchmark", [f"architecture={architecture}", "paths.output_dir=out"])
    protein, dna = (build(cfg.architecture[name]).config for name in ("protein_encoder", "dna_encoder"))
    size = architecture.removeprefix("esm2_")
    if architecture == "golden":
        assert (protein.num_layers, protein.width, protein.num_heads, protein.ffn_width) == (3, 64, 4, 256)
    else:
        assert (protein.num_layers, protein.width, protein.num_heads) == SIZES[size]
        assert matrix_flops_per_token(dna) == 2 * DNABERT_S_WEIGHTS
    if size in WEIGHTS:
        assert matrix_flops_per_token(protein) == 2 * WEIGHTS[size]
    model = build(cfg.model)
    assert model.head_source.dna_width + model.head_source.protein_width == dna.width + protein.width
