"""Sweeps: one table at the end, and no job stops the others."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from support import Result, model_overrides
from virnucpro_pl.cli.sweep import (
    CACHED,
    DONE,
    OUT_OF_MEMORY,
    SWEEP_TABLE,
    JobRow,
    SweepTable,
    best_line,
    sweep_exit_status,
    tsv,
)


@pytest.fixture
def sweep(cli: Callable[..., Result], mini: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run a sweep with the mini models into ``tmp_path / "out"``."""

    def run(*arguments: object) -> Result:
        command = ["predict", "-m", f"input={mini / 'inputs' / 'mini.fa'}", f"output={tmp_path / 'out'}"]
        return cli(*command, "trainer.accelerator=cpu", *model_overrides(mini), *arguments)

    return run


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / SWEEP_TABLE).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_table_holds_the_figures_of_every_jobs_run_record(sweep: Callable[..., Result], tmp_path: Path) -> None:
    result = sweep("data.token_budget=64,1000,8192")
    assert result.code == 0, result.err
    rows = read_table(tmp_path / "out")
    assert [row["overrides"] for row in rows] == [f"data.token_budget={budget}" for budget in (64, 1000, 8192)]
    assert [row["status"] for row in rows] == [DONE] * 3
    for row in rows:
        figures = json.loads((tmp_path / "out" / row["job"] / "run.json").read_text())["figures"]
        assert float(row["tokens_per_second"]) == figures["tokens_per_second"] > 0
        assert float(row["sequences_per_second"]) == figures["sequences_per_second"] > 0
        assert int(row["peak_memory_bytes"]) == figures["peak_memory_bytes"]
    table = result.err[result.err.index("Jobs of the sweep") :]
    for row in rows:
        (line,) = [line for line in table.splitlines() if f"{row['overrides']} " in line]
        assert f"{float(row['tokens_per_second']):,.0f}" in line
    best = max(rows, key=lambda row: float(row["tokens_per_second"]))
    assert f"Best: job {best['job']} ({best['overrides']})" in result.err
    assert not result.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0", "1", "2", "multirun.yaml", SWEEP_TABLE]


def test_figures_are_those_of_the_whole_of_prediction(sweep: Callable[..., Result], tmp_path: Path) -> None:
    """Jobs return the tokens of both encoders, divided by the time of prediction."""
    assert sweep("data.token_budget=64,1000").code == 0
    figures = json.loads((tmp_path / "out" / "0" / "run.json").read_text())["figures"]
    tokens = sum(encoder["tokens"] for encoder in figures["encoders"].values())
    # Seconds are rounded to milliseconds there.
    assert tokens / figures["tokens_per_second"] == pytest.approx(figures["predict_seconds"], abs=1e-3)
    assert figures["embedded_orfs"] / figures["sequences_per_second"] == pytest.approx(
        figures["predict_seconds"], abs=2e-3
    )


def test_mistake_in_one_job_is_listed_and_the_others_run(sweep: Callable[..., Result], tmp_path: Path) -> None:
    result = sweep("data.token_budget=0,256")
    assert result.code == 2
    assert "Traceback" not in result.err
    failed, done = read_table(tmp_path / "out")
    assert failed["status"].startswith("failed: data.token_budget=0: give a number")
    assert failed["tokens_per_second"] == failed["peak_memory_bytes"] == "NA"
    assert done["status"] == DONE
    assert "Best: job 1 (data.token_budget=256)" in result.err


def test_a_sweep_started_again_does_only_what_is_not_done(sweep: Callable[..., Result], tmp_path: Path) -> None:
    assert sweep("data.token_budget=64,256").code == 0
    before = read_table(tmp_path / "out")
    for path in (tmp_path / "out" / "1").iterdir():
        path.unlink()  # as if it had been killed before its second job

    result = sweep("data.token_budget=64,256")

    assert result.code == 0, result.err
    assert result.err.count("Finished already") == 1
    after = read_table(tmp_path / "out")
    assert after[0] == before[0]
    assert [row["status"] for row in after] == [DONE] * 2


def test_other_settings_in_the_folder_of_a_done_job_are_refused(sweep: Callable[..., Result], tmp_path: Path) -> None:
    assert sweep("data.token_budget=64,256").code == 0
    result = sweep("data.token_budget=64,512")
    assert result.code == 2
    message = "holds the results of another run (data.token_budget=256 there, data.token_budget=512 here)"
    assert message in read_table(tmp_path / "out")[1]["status"]


def test_jobs_that_found_embeddings_in_a_cache_are_never_the_best(sweep: Callable[..., Result], tmp_path: Path) -> None:
    result = sweep("data.token_budget=64,256", f"data.embedding_cache={tmp_path / 'cache'}")
    assert result.code == 0, result.err
    assert [row["status"] for row in read_table(tmp_path / "out")] == [DONE, CACHED]
    assert "Best: job 0 (data.token_budget=64)" in result.err


def test_crash_of_one_job_is_listed_and_the_others_run(
    sweep: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virnucpro_pl.models.virnucpro import VirNucPro

    step = VirNucPro.predict_step

    def fails_on_small_batches(self, batch, batch_idx):
        if len(batch.protein.tokens) < 200:
            raise RuntimeError("power\tcut")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VirNucPro, "predict_step", fails_on_small_batches)
    result = sweep("data.token_budget=64,100000")
    assert result.code == 1
    assert [row["status"] for row in read_table(tmp_path / "out")] == ["failed: RuntimeError: power cut", DONE]
    assert not (tmp_path / "out" / "0" / "run.json").exists()


def test_interrupted_sweep_leaves_the_jobs_that_are_done(
    sweep: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virnucpro_pl.models.virnucpro import VirNucPro

    step = VirNucPro.predict_step

    def interrupted_on_small_batches(self, batch, batch_idx):
        if len(batch.protein.tokens) < 200:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VirNucPro, "predict_step", interrupted_on_small_batches)
    assert sweep("data.token_budget=100000,5000,64,100000").code == 130
    assert [row["status"] for row in read_table(tmp_path / "out")] == [DONE] * 2

    monkeypatch.undo()
    assert sweep("data.token_budget=300", "overwrite=true").code == 0
    assert len(read_table(tmp_path / "out")) == 1, "rows of the earlier sweep are still there"


def test_misspelt_key_stops_a_sweep_before_it_begins(sweep: Callable[..., Result], tmp_path: Path) -> None:
    assert sweep("data.token_bugdet=64,256").code == 2
    assert not (tmp_path / "out" / SWEEP_TABLE).exists()


# --- memory that really runs out


CALLBACKS = """
import resource
from pathlib import Path

from lightning.pytorch.callbacks import Callback


class MemoryLimit(Callback):
    def __init__(self, mebibytes):
        self.mebibytes = mebibytes

    def on_predict_start(self, trainer, pl_module):
        self.before = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0])
        resource.setrlimit(resource.RLIMIT_AS, ((used + self.mebibytes * 1024) * 1024, self.before[1]))

    def on_predict_end(self, trainer, pl_module):
        resource.setrlimit(resource.RLIMIT_AS, self.before)

    def on_exception(self, trainer, pl_module, exception):
        resource.setrlimit(resource.RLIMIT_AS, self.before)


class Ballast(Callback):
    def __init__(self, mebibytes):
        self.mebibytes = mebibytes

    def on_predict_start(self, trainer, pl_module):
        self.held = b"x" * (self.mebibytes * 2**20)

    def on_predict_end(self, trainer, pl_module):
        del self.held
"""
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc: run on Linux")


@pytest.fixture
def predict_with_callbacks(mini: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run ``predict`` in a process that can import the callbacks above."""
    (tmp_path / "memory.py").write_text(CALLBACKS)
    reads = tmp_path / "reads.fa"
    reads.write_text((mini / "inputs" / "mini.fa").read_text() * 60)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    # A thread takes address space whether it works or not, and there are as many as cores.
    environment |= {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "MALLOC_ARENA_MAX": "2"}

    def run(*arguments: object) -> Result:
        command = [sys.executable, "-m", "virnucpro_pl", "predict", *map(str, arguments), *model_overrides(mini)]
        command += [f"input={reads}", f"output={tmp_path / 'out'}", "data.deduplicate=false", "trainer.accelerator=cpu"]
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return Result(result.returncode, result.stdout, result.stderr)

    return run


@pytest.fixture
def predict_with_little_memory(predict_with_callbacks: Callable[..., Result]) -> Callable[..., Result]:
    """Run ``predict`` with an address space that may grow by 100 MiB during prediction."""
    limit = ("+callbacks.limit._target_=memory.MemoryLimit", "+callbacks.limit.mebibytes=100")
    return lambda *arguments: predict_with_callbacks(*arguments, *limit)


@linux
def test_job_that_runs_out_of_memory_is_listed_and_the_others_run(
    predict_with_little_memory: Callable[..., Result], tmp_path: Path
) -> None:
    result = predict_with_little_memory("-m", "data.token_budget=1000000,2000")
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    assert [row["status"] for row in read_table(tmp_path / "out")] == [OUT_OF_MEMORY, DONE]
    (message,) = [line for line in result.err.splitlines() if line.startswith("Error: ")]
    assert message == "Error: out of memory on cpu with data.token_budget=1000000: give a smaller one"
    assert "Best: job 1" in result.err


@linux
def test_run_that_runs_out_of_memory_gives_advice(predict_with_little_memory: Callable[..., Result]) -> None:
    result = predict_with_little_memory("data.token_budget=1000000")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert result.err.splitlines()[-1] == (
        "Error: out of memory on cpu with data.token_budget=1000000: give a smaller one"
    )


@linux
def test_peak_memory_is_each_jobs_own(predict_with_callbacks: Callable[..., Result], tmp_path: Path) -> None:
    """All jobs run in one process, of which the system reports the largest peak."""
    ballast = ("+callbacks.ballast._target_=memory.Ballast", "+callbacks.ballast.mebibytes=600,0")
    result = predict_with_callbacks("-m", *ballast)
    assert result.code == 0, result.err
    heavy, light = (int(row["peak_memory_bytes"]) for row in read_table(tmp_path / "out"))
    assert light < heavy - 300 * 2**20


# --- the table and the exit status

FIGURES = ("tokens_per_second", "sequences_per_second", "peak_memory_bytes")


def row(job: int, status: str = DONE, exit_status: int = 0, tokens: float | None = 100.0, **changes) -> JobRow:
    figures = dict(zip(FIGURES, (tokens, 2.0, 3), strict=True)) if status == DONE else {}
    return JobRow(job, [f"data.token_budget={job}", "x=1"], status, figures, exit_status)._replace(**changes)


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([row(0), row(1)], 0),
        ([row(0), row(1, OUT_OF_MEMORY, 1)], 0),
        ([row(0, OUT_OF_MEMORY, 1), row(1, OUT_OF_MEMORY, 1)], 1),
        ([row(0), row(1, "failed: x", 2)], 2),
        ([row(0), row(1, "failed: x", 1)], 1),
        ([row(0, "failed: x", 2), row(1, "failed: x", 1)], 1),
        ([row(0, "failed: x", 2), row(1, OUT_OF_MEMORY, 1)], 2),
    ],
)
def test_exit_status_of_a_sweep(rows: list[JobRow], status: int) -> None:
    assert sweep_exit_status(rows) == status


def test_table_shows_what_differs_between_the_jobs() -> None:
    rows = [row(0), row(1, OUT_OF_MEMORY), row(2, overrides=["x=1", "a='b\tc\nd'"])]
    assert tsv(rows, FIGURES).splitlines() == [
        "job\toverrides\ttokens_per_second\tsequences_per_second\tpeak_memory_bytes\tstatus",
        "0\tdata.token_budget=0\t100.0\t2.0\t3\tdone",
        "1\tdata.token_budget=1\tNA\tNA\tNA\tout of memory",
        "2\ta='b c d'\t100.0\t2.0\t3\tdone",
    ]


def test_best_is_the_fastest_of_those_that_were_done() -> None:
    assert best_line([row(0), row(1, tokens=1234.6), row(2, OUT_OF_MEMORY)], FIGURES[0]) == (
        "Best: job 1 (data.token_budget=1), 1,235 tokens/s"
    )
    assert best_line([row(0, OUT_OF_MEMORY)], FIGURES[0]) == "Best: none, no job finished"
    cached = [row(0, OUT_OF_MEMORY), row(1, CACHED)]
    assert best_line(cached, FIGURES[0]) == "Best: none, no job computed all of its embeddings"


def test_search_for_the_slowest_job_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = OmegaConf.create({"hydra": {"sweeper": {"direction": "minimize"}, "sweep": {"dir": str(tmp_path)}}})
    with pytest.raises(SystemExit) as refusal:
        SweepTable("run.json", FIGURES).on_multirun_start(config)
    assert refusal.value.code == 2
    assert "direction=maximize" in caplog.text


@pytest.mark.skipif(not find_spec("optuna"), reason="Optuna is not installed: make test-optional")
def test_optuna_searches_for_the_most_tokens_per_second(mini: Path, tmp_path: Path) -> None:
    """A job with a wrong budget does not end the search."""
    command = [sys.executable, "-m", "virnucpro_pl", "predict", "-m", f"input={mini / 'inputs' / 'mini.fa'}"]
    command += [f"output={tmp_path}", "trainer.accelerator=cpu", *model_overrides(mini)]
    command += ["hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_jobs=1"]
    command += ["data.token_budget=choice(0,64,1000,8192)"]

    def search(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)

    refused = search()  # Optuna minimises by default
    assert refused.returncode == 2
    assert "direction=maximize" in refused.stderr

    result = search("hydra.sweeper.direction=maximize")
    assert result.returncode == 2, result.stderr  # for the budget of 0
    rows = read_table(tmp_path)
    assert len(rows) == 4
    best = max((row for row in rows if row["status"] == DONE), key=lambda row: float(row["tokens_per_second"]))
    found = OmegaConf.load(tmp_path / "optimization_results.yaml")
    assert found.best_value == float(best["tokens_per_second"])
    assert f"data.token_budget={found.best_params['data.token_budget']}" == best["overrides"]


@pytest.mark.skipif(not find_spec("submitit"), reason="submitit is not installed: make test-optional")
def test_jobs_that_submitit_starts_meet_in_one_table(mini: Path, tmp_path: Path) -> None:
    """Run on this machine with the local executor of submitit; one job is a mistake."""
    command = [sys.executable, "-m", "virnucpro_pl", "predict", "-m", "hydra/launcher=submitit_local"]
    command += [f"input={mini / 'inputs' / 'mini.fa'}", f"output={tmp_path}", "trainer.accelerator=cpu"]
    command += [*model_overrides(mini), "data.token_budget=256,0"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 2, result.stderr
    done, failed = read_table(tmp_path)
    assert done["status"] == DONE
    assert failed["status"].startswith("failed: data.token_budget=0: give a number")
    figures = json.loads((tmp_path / "0" / "run.json").read_text())["figures"]
    assert float(done["tokens_per_second"]) == figures["tokens_per_second"]
    assert len((tmp_path / "0" / "sequences.tsv").read_text().splitlines()) > 10
    assert "Best: job 0" in result.stderr
