"""Several devices and several jobs: the same bytes, nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from support import Result, model_overrides, run_here
from virnucpro_pl.files.output_files import RESULT_FILES


def run(
    *arguments: object, threads: int = 1, before: Sequence[str] = (), cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **variables}
    command = [
        *before,
        sys.executable,
        "-m",
        "virnucpro_pl",
        "predict",
        *map(str, arguments),
        "trainer.accelerator=cpu",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=cwd, timeout=300)


@pytest.fixture(scope="module")
def one_device(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One device with more threads than the others will have."""
    output = tmp_path_factory.mktemp("one")
    reads = mini / "inputs" / "mini.fa"
    result = run(f"input={reads}", f"output={output}", "data.token_budget=256", *model_overrides(mini), threads=3)
    assert result.returncode == 0, result.stderr
    return output


@pytest.fixture(scope="module")
def two_devices(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two devices' results: with workers, in a dated folder, where temporary paths are long.

    Too long for a socket in them, as workflow engines make them.
    """
    folder = tmp_path_factory.mktemp("two")
    long_folder = folder / ("call-predict" * 10) / ("shard-0" * 10)
    long_folder.mkdir(parents=True)
    assert len(str(long_folder)) > 150
    settings = ["data.token_budget=256", "data.num_workers=1", "trainer.devices=2", "trainer.strategy=ddp"]
    settings += model_overrides(mini)
    result = run(f"input={mini / 'inputs' / 'mini.fa'}", *settings, cwd=folder, TMPDIR=str(long_folder))
    assert result.returncode == 0, result.stderr
    return folder / "outputs" / "predict"


def test_two_devices_write_the_same_bytes_with_other_threads(one_device: Path, two_devices: Path) -> None:
    """Here with ddp; the sweep over numbers of devices below does the same with ddp_spawn."""
    output = next(two_devices.iterdir())
    for name in RESULT_FILES:
        assert (output / name).read_bytes() == (one_device / name).read_bytes(), name
    runs = [json.loads((folder / "run.json").read_text()) for folder in (one_device, output)]
    assert runs[1]["engine"]["world_size"] == 2
    assert runs[0]["counts"]["calls"] == runs[1]["counts"]["calls"]
    assert runs[0]["figures"]["embedded_orfs"] == runs[1]["figures"]["embedded_orfs"]
    assert not (output / ".work").exists()
    assert [path.name for path in output.glob("*.log")] == ["run.log"]


def test_all_devices_use_the_dated_folder_of_the_first(two_devices: Path) -> None:
    """Processes that Lightning starts read the clock later."""
    (output,) = two_devices.iterdir()
    assert {path.name for path in output.iterdir()} >= set(RESULT_FILES)


def test_long_temporary_folder_holds_up_nobody(two_devices: Path) -> None:
    """R36: the worker of each device served batches."""
    record = json.loads((next(two_devices.iterdir()) / "run.json").read_text())
    assert record["config"]["data"]["num_workers"] == 1
    assert record["figures"]["batches"] > 2


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
    code = run_here(
        "predict",
        "-m",
        "trainer.accelerator=cpu",
        "data.token_budget=256,8192",
        f"input={mini / 'inputs' / 'mini.fa'}",
        f"output={tmp_path}",
        *model_overrides(mini),
    )
    assert code == 0
    tables = [(tmp_path / job / "prediction_results_highestscore.csv").read_text() for job in "01"]
    assert [row.split("\t")[:2] for row in tables[0].splitlines()] == [
        row.split("\t")[:2] for row in tables[1].splitlines()
    ]
    batches = [json.loads((tmp_path / job / "run.json").read_text())["figures"]["batches"] for job in "01"]
    assert batches[0] > batches[1]


def test_sweep_refuses_a_strategy_that_would_lose_batches(
    cli: Callable[..., Result], mini: Path, tmp_path: Path
) -> None:
    result = cli(
        "predict",
        "-m",
        "trainer.accelerator=cpu",
        "data.token_budget=256,8192",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        f"input={mini / 'inputs' / 'mini.fa'}",
        f"output={tmp_path}",
        *model_overrides(mini),
    )
    assert result.code == 2
    assert "ddp_spawn" in result.err


def test_sweep_over_numbers_of_devices_loses_nothing(mini: Path, one_device: Path, tmp_path: Path) -> None:
    settings = ["data.token_budget=256", "trainer.strategy=ddp_spawn", *model_overrides(mini)]
    result = run("-m", "trainer.devices=2,1", f"input={mini / 'inputs' / 'mini.fa'}", f"output={tmp_path}", *settings)
    assert result.returncode == 0, result.stderr
    for job, devices in (("0", 2), ("1", 1)):
        assert json.loads((tmp_path / job / "run.json").read_text())["engine"]["world_size"] == devices
        for name in RESULT_FILES:
            assert (tmp_path / job / name).read_bytes() == (one_device / name).read_bytes(), (job, name)


def with_shared_memory_of(size: str) -> list[str]:
    """Start of a command that finds a small /dev/shm, as in containers."""
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


def test_shared_memory_smaller_than_a_batch_is_enough(mini: Path, tmp_path: Path) -> None:
    small = with_shared_memory_of("1m")
    if not shutil.which("unshare") or subprocess.run([*small, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a small /dev/shm cannot be mounted: run as root on Linux, outside of a container")
    generator = np.random.default_rng(3)
    reads = tmp_path / "reads.fa"
    codons = ["GCT", "GGT", "CCT", "ACT", "GTT", "AAA"]
    reads.write_text("".join(f">r{number}\n{''.join(generator.choice(codons, 99))}\n" for number in range(1000)))
    settings = [f"input={reads}", "data.token_budget=60000", *model_overrides(mini)]
    assert run_here("predict", f"output={tmp_path / 'plain'}", "trainer.accelerator=cpu", *settings) == 0

    result = run(f"output={tmp_path / 'small'}", "data.num_workers=1", *settings, before=small)

    assert result.returncode == 0, result.stderr
    for name in RESULT_FILES:
        assert (tmp_path / "small" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name
