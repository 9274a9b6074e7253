"""``data.token_budget=auto``: the largest batches that fit, the same on all ranks and after an interruption."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from support import Result, model_overrides
from virnucpro_pl.callbacks import token_budget as budget
from virnucpro_pl.callbacks.token_budget import Peak, largest_budget
from virnucpro_pl.errors import OutOfMemoryError
from virnucpro_pl.files.output_files import RESULT_FILES

MIB = 2**20


# --- the search


@given(
    weights=st.integers(0, 10**10),
    per_token=st.integers(1, 10**6),
    longest=st.integers(3, 20000),
    fits=st.integers(3, 10**6),
    most=st.integers(1, 10**7),
    spare=st.integers(0, 10**6),
)
def test_largest_power_of_two_is_found_without_running_out_of_memory_twice(
    weights, per_token, longest, fits, most, spare
):
    """Against trying every power of two, on a device whose memory is affine in the tokens."""
    room = weights + per_token * fits

    def peak_bytes(token_budget: int) -> int:
        return weights + per_token * max(longest, token_budget)  # one sequence at least

    tried = []

    def try_batch(token_budget: int) -> Peak | None:
        tried.append(token_budget)
        taken = peak_bytes(token_budget)
        return Peak(max(longest, token_budget), taken) if taken <= room + spare else None

    powers = [2**exponent for exponent in range(18) if 2**exponent < 2 * most]
    fitting = [power for power in powers if peak_bytes(power) <= room]
    if not fitting:
        with pytest.raises(OutOfMemoryError, match="longest sequence"):
            largest_budget(try_batch, room, most)
        return
    found, peak = largest_budget(try_batch, room, most)
    assert found == max(fitting)
    assert peak.bytes == peak_bytes(found)
    if longest < 2048 <= fits:
        assert len(tried) <= 3 + (fits < 8192), tried


def test_memory_that_grows_faster_than_foretold_halves_the_budget() -> None:
    def try_batch(token_budget: int) -> Peak | None:
        return Peak(token_budget, token_budget**2) if token_budget <= 60000 else None

    assert largest_budget(try_batch, room=40000**2, most=10**6)[0] == 32768


# --- through the program, on a device with a fake limit


class SmallDevice(TorchDispatchMode):
    """The CPU's tensors, counted as a GPU's allocator counts, and no more of them than it could hold."""

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity = capacity
        self.most = 0
        self.steps = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._live.values()))
        if self.most > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return out

    def room(self) -> int:
        return self.capacity * 3 // 4

    def peak(self, step: Callable[[], object]) -> int:
        self.steps += 1
        self.most = 0
        self._live.clear()
        with self:
            step()
        return self.most

    def release(self) -> None:
        self._live.clear()


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], SmallDevice]:
    def make(capacity: int) -> SmallDevice:
        device = SmallDevice(capacity)
        monkeypatch.setattr(budget, "device_memory", lambda _: device)
        return device

    return make


@pytest.fixture
def reads(mini: Path, tmp_path: Path) -> Path:
    """190,000 protein tokens, once repeats are not told."""
    path = tmp_path / "reads.fa"
    path.write_text((mini / "inputs" / "mini.fa").read_text() * 60)
    return path


def arguments(reads: Path, output: Path, mini: Path) -> list[str]:
    settings = ["data.token_budget=auto", "data.deduplicate=false", "trainer.accelerator=cpu"]
    return ["predict", f"input={reads}", f"output={output}", *settings, *model_overrides(mini)]


def run_record(output: Path) -> dict:
    return json.loads((output / "run.json").read_text())


def test_budget_is_the_largest_whose_batch_fits(
    cli: Callable[..., Result],
    small_device: Callable[[int], SmallDevice],
    reads: Path,
    mini: Path,
    tmp_path: Path,
) -> None:
    """The real encoders, on the longest batches of the real plan."""
    peaks = {}

    def try_all(trainer, longest_batch, most):
        model = trainer.lightning_module
        unlimited = SmallDevice(2**50)
        with torch.inference_mode():
            for exponent in range(11, 17):
                batch = longest_batch(2**exponent)
                peaks[2**exponent] = unlimited.peak(lambda batch=batch: model.embed(batch))
        return find(trainer, longest_batch, most)

    find = budget.find_token_budget
    device = small_device(40 * MIB)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "find_token_budget", try_all)
        result = cli(*arguments(reads, tmp_path / "out", mini))

    assert result.code == 0, result.err
    run = run_record(tmp_path / "out")
    fitting = [power for power, peak in peaks.items() if peak <= device.room()]
    assert 2048 < max(fitting) < max(peaks), "the limit is not between"
    assert run["figures"]["token_budget"] == max(fitting)
    assert f"Token budget: {max(fitting):,}" in result.err
    assert device.steps <= 4
    assert run["config"]["data"]["token_budget"] == "auto"
    trials = sum(run["figures"]["stages"][stage]["seconds"] for stage in ("DNABERT-S", "ESM-2"))
    assert trials <= run["figures"]["predict_seconds"], "the time of the trials was counted as prediction"


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no CUDA device: run pytest -m gpu where there is one"
)
def test_budget_found_on_a_gpu_fits(cli: Callable[..., Result], reads: Path, mini: Path, tmp_path: Path) -> None:
    words = [word for word in arguments(reads, tmp_path / "out", mini) if "accelerator" not in word]
    result = cli(*words, "trainer.accelerator=gpu")
    assert result.code == 0, result.err
    figures = run_record(tmp_path / "out")["figures"]
    assert figures["token_budget"] in {2**exponent for exponent in range(18)}
    assert figures["gpu_peak_memory_bytes"] < torch.cuda.get_device_properties(0).total_memory


def test_later_start_keeps_the_budget_of_the_parts_on_disk(
    cli: Callable[..., Result],
    small_device: Callable[[int], SmallDevice],
    reads: Path,
    mini: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from virnucpro_pl.models.virnucpro import VirNucPro

    step = VirNucPro.predict_step

    def fails_late(self, batch, batch_idx):
        if batch_idx == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return step(self, batch, batch_idx)

    small_device(40 * MIB)
    with monkeypatch.context() as patch:
        patch.setattr(VirNucPro, "predict_step", fails_late)
        failed = cli(*arguments(reads, tmp_path / "out", mini))
    assert failed.code == 1
    (told,) = [line for line in failed.err.splitlines() if line.startswith("Error: ")]

    larger = small_device(2**50)
    result = cli(*arguments(reads, tmp_path / "out", mini))

    assert result.code == 0, result.err
    assert larger.steps == 0, "the budget was looked for again"
    figures = run_record(tmp_path / "out")["figures"]
    assert f"data.token_budget={figures['token_budget']}" in told
    assert f"after the 2 of {figures['batches'] + 2} batches" in told


def test_nothing_is_tried_where_memory_cannot_be_measured(
    cli: Callable[..., Result], mini: Path, tmp_path: Path
) -> None:
    """On the CPU, auto is the usual budget."""
    budgets = []
    for number, token_budget in enumerate(["auto", "null"]):
        output = tmp_path / str(number)
        words = arguments(mini / "inputs" / "mini.fa", output, mini)
        assert cli(*words, f"data.token_budget={token_budget}").code == 0
        budgets.append(run_record(output)["figures"]["token_budget"])
    assert budgets[0] == budgets[1] == 4096


def test_sequence_that_does_not_fit_alone_is_told(
    cli: Callable[..., Result], small_device: Callable[[int], SmallDevice], reads: Path, mini: Path, tmp_path: Path
) -> None:
    small_device(1000)
    result = cli(*arguments(reads, tmp_path / "out", mini))
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "not even the longest sequence" in result.err
    assert not (tmp_path / "out" / "run.json").exists()


UNEVEN = r"""
from virnucpro_pl.callbacks import token_budget as budget


class Memory:
    def __init__(self, rank):
        self.rank = rank

    def room(self):
        return (100, 50)[self.rank]

    def peak(self, step):
        return len(step())  # a byte for each ORF

    def release(self):
        pass


def find(trainer, longest_batch, most):
    budget.device_memory = lambda device: Memory(trainer.global_rank)
    found = budget.find_token_budget(trainer, longest_batch, most)
    print(f"rank {trainer.global_rank} found {found}\n", end="", flush=True)
    return found
"""


def test_ranks_agree_on_the_smallest_budget(cli: Callable[..., Result], mini: Path, tmp_path: Path) -> None:
    """The second device holds half as much; the results are those of that budget given outright."""
    reads = tmp_path / "reads.fa"
    reads.write_text((mini / "inputs" / "mini.fa").read_text() * 10)
    (tmp_path / "uneven.py").write_text(UNEVEN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}

    command = [sys.executable, "-m", "virnucpro_pl", *arguments(reads, tmp_path / "two", mini)]
    command += ["data.find_token_budget._target_=uneven.find", "trainer.devices=2", "trainer.strategy=ddp"]
    two = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert two.returncode == 0, two.stderr
    found = run_record(tmp_path / "two")["figures"]["token_budget"]
    assert {f"rank {rank} found {found}" for rank in (0, 1)} <= set(two.stdout.splitlines())
    assert cli(*arguments(reads, tmp_path / "one", mini), f"data.token_budget={found}").code == 0
    for name in RESULT_FILES:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
