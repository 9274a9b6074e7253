"""Several devices and several jobs: the same bytes, nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import model_overrides
from virnucpro_pl.results.tables import RESULT_FILES


def run(*arguments: object, threads: int = 1) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "virnucpro_pl", "predict", *map(str, arguments), "trainer.accelerator=cpu"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def one_device(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One device with more threads than the others will have."""
    output = tmp_path_factory.mktemp("one")
    reads = mini / "inputs" / "mini.fa"
    result = run(f"input={reads}", f"output={output}", "data.token_budget=256", *model_overrides(mini), threads=3)
    assert result.returncode == 0, result.stderr
    return output


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_two_devices_write_the_same_bytes_with_other_threads(
    strategy: str, mini: Path, one_device: Path, tmp_path: Path
) -> None:
    result = run(
        f"input={mini / 'inputs' / 'mini.fa'}",
        f"output={tmp_path}",
        "data.token_budget=256",
        "trainer.devices=2",
        f"trainer.strategy={strategy}",
        *model_overrides(mini),
    )
    assert result.returncode == 0, result.stderr
    for name in RESULT_FILES:
        assert (tmp_path / name).read_bytes() == (one_device / name).read_bytes(), name
    runs = [json.loads((folder / "run.json").read_text()) for folder in (one_device, tmp_path)]
    assert runs[1]["engine"]["world_size"] == 2
    assert runs[0]["counts"]["calls"] == runs[1]["counts"]["calls"]
    assert runs[0]["figures"]["embedded_orfs"] == runs[1]["figures"]["embedded_orfs"]
    assert not (tmp_path / ".work").exists()


def test_mistake_with_two_devices_is_told_once(mini: Path, tmp_path: Path) -> None:
    result = run(
        f"input={tmp_path / 'missing.fa'}",
        f"output={tmp_path / 'out'}",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        *model_overrides(mini),
    )
    assert result.returncode == 2
    assert result.stderr.count("missing.fa") == 1
    assert "Traceback" not in result.stderr


def test_sweep_over_token_budgets(mini: Path, tmp_path: Path) -> None:
    result = run(
        "-m",
        "data.token_budget=256,8192",
        f"input={mini / 'inputs' / 'mini.fa'}",
        f"output={tmp_path}",
        *model_overrides(mini),
    )
    assert result.returncode == 0, result.stderr
    tables = [(tmp_path / job / "prediction_results_highestscore.csv").read_text() for job in "01"]
    assert [row.split("\t")[:2] for row in tables[0].splitlines()] == [
        row.split("\t")[:2] for row in tables[1].splitlines()
    ]
    batches = [json.loads((tmp_path / job / "run.json").read_text())["figures"]["batches"] for job in "01"]
    assert batches[0] > batches[1]


def test_sweep_refuses_a_strategy_that_would_lose_batches(mini: Path, tmp_path: Path) -> None:
    result = run(
        "-m",
        "data.token_budget=256,8192",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        f"input={mini / 'inputs' / 'mini.fa'}",
        f"output={tmp_path}",
        *model_overrides(mini),
    )
    assert result.returncode == 2
    assert "ddp_spawn" in result.stderr


def test_workers_change_nothing(mini: Path, one_device: Path, tmp_path: Path) -> None:
    result = run(
        f"input={mini / 'inputs' / 'mini.fa'}",
        f"output={tmp_path}",
        "data.token_budget=256",
        "data.num_workers=2",
        *model_overrides(mini),
    )
    assert result.returncode == 0, result.stderr
    for name in RESULT_FILES:
        assert (tmp_path / name).read_bytes() == (one_device / name).read_bytes(), name
