"""What a sweep ends with: one table of its jobs. A Hydra callback; one job's failure does not stop the others."""

import gc
import json
import logging
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl.errors import OutOfMemoryError
from virnucpro_pl.failures import EXIT_FAILED, EXIT_USAGE, exit_status, one_line
from virnucpro_pl.host_memory import return_freed_memory

log = logging.getLogger(__name__)

SWEEP_TABLE = "sweep.tsv"
DONE, CACHED, OUT_OF_MEMORY, FAILED = "done", "done, with cached embeddings", "out of memory", "failed"
_ROWS_FOLDER = ".sweep"  # a launcher may run jobs in other processes, so their rows meet on disk


class JobRow(NamedTuple):
    """One job of a sweep; figures are None where the job did not end well."""

    job: int
    overrides: list[str]
    status: str
    """``done``, ``done, with cached embeddings`` (whose speed compares with no other), ``out of memory``, or
    ``failed: `` and why"""
    tokens_per_second: float | None = None
    """of both encoders, over the time of prediction"""
    sequences_per_second: float | None = None
    """ORFs embedded, over the time of prediction"""
    peak_memory_bytes: int | None = None
    """on the GPU where there is one, else of the process"""
    exit_status: int = 0


class SweepTable(Callback):
    """Compares the jobs of a sweep.

    After every job ``sweep.tsv`` in the sweep's folder is brought up to date; at the end a table goes to standard
    error, with the name of the fastest.

    A failed job becomes a row, and tells the sweeper minus infinity tokens per second. The sweep ends with status 0 if
    every job was done or ran out of memory and at least one was done, with 2 if mistakes in the command or input were
    the only failures, else with 1.

    Args:
        run_file: what a job that was done leaves in its folder, with ``figures``.
    """

    def __init__(self, run_file: str):
        self._run_file = run_file

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget the rows of an earlier sweep, and refuse to search for the slowest job."""
        direction = str(OmegaConf.select(config, "hydra.sweeper.direction"))
        if direction.rpartition(".")[2].lower() == "minimize":
            log.error("Error: jobs return tokens per second; use hydra.sweeper.direction=maximize")
            sys.exit(EXIT_USAGE)
        shutil.rmtree(_rows_folder(config), ignore_errors=True)

    def on_job_start(self, config: DictConfig, *, task_function: TaskFunction, **kwargs: Any) -> None:
        """Let go of what the job before held, so that each has the whole memory and a peak of its own."""
        if config.hydra.mode is RunMode.MULTIRUN:
            _free_memory()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Add the job to the table."""
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        row = self._row(config, job_return)
        if job_return.status is JobStatus.FAILED:
            # Sweepers stop at an exception. Keeping it would also keep the tensors its traceback refers to.
            job_return.return_value = float("-inf")
            job_return.status = JobStatus.COMPLETED
        folder = _rows_folder(config)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"{row.job}.json", json.dumps(row._asdict()))
        _write(folder.with_name(SWEEP_TABLE), tsv(_read_rows(folder)))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table and, if a job failed, end with its exit status."""
        folder = _rows_folder(config)
        rows = _read_rows(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if not rows:
            return
        _print(rows)
        log.info("%s", best_line(rows))
        log.info("Comparison: %s", folder.with_name(SWEEP_TABLE))
        if status := sweep_exit_status(rows):
            sys.exit(status)

    def _row(self, config: DictConfig, job_return: JobReturn) -> JobRow:
        number, overrides = int(config.hydra.job.num), list(job_return.overrides or [])
        if job_return.status is JobStatus.FAILED:
            error: BaseException = job_return._return_value  # the property raises it
            status = OUT_OF_MEMORY if isinstance(error, OutOfMemoryError) else f"{FAILED}: {one_line(error)}"
            return JobRow(number, overrides, status, exit_status=exit_status(error))
        run = Path(config.hydra.runtime.output_dir) / self._run_file
        figures = json.loads(run.read_text(encoding="utf-8"))["figures"]
        is_cached = any(encoder["cached"] for encoder in figures["encoders"].values())
        return JobRow(
            number,
            overrides,
            CACHED if is_cached else DONE,
            float(job_return.return_value),
            figures["sequences_per_second"],
            figures["gpu_peak_memory_bytes"] or figures["peak_memory_bytes"],
        )


def tsv(rows: Iterable[JobRow]) -> str:
    """Render the table; ``NA`` where there is no figure."""
    lines = ["job\toverrides\ttokens_per_second\tsequences_per_second\tpeak_memory_bytes\tstatus"]
    for row, overrides in _with_what_varies(rows):
        figures = (row.tokens_per_second, row.sequences_per_second, row.peak_memory_bytes)
        cells = ["NA" if figure is None else str(figure) for figure in figures]
        lines.append("\t".join([str(row.job), overrides, *cells, row.status]))
    return "\n".join(lines) + "\n"


def best_line(rows: list[JobRow]) -> str:
    """Name the fastest job by what to type to have it again."""
    done = [(row, overrides) for row, overrides in _with_what_varies(rows) if row.status == DONE]
    if not done:
        return "Best: none, no job computed all of its embeddings"
    row, overrides = max(done, key=lambda pair: pair[0].tokens_per_second or 0.0)
    return f"Best: job {row.job} ({overrides}), {row.tokens_per_second:,.0f} tokens/s"


def sweep_exit_status(rows: list[JobRow]) -> int:
    """Running out of memory is an answer, as long as one job had enough."""
    failed = {row.exit_status for row in rows if row.status not in (DONE, CACHED, OUT_OF_MEMORY)}
    if failed:
        return EXIT_USAGE if failed == {EXIT_USAGE} else EXIT_FAILED
    return 0 if any(row.status in (DONE, CACHED) for row in rows) else EXIT_FAILED


def _with_what_varies(rows: Iterable[JobRow]) -> list[tuple[JobRow, str]]:
    """Each job with those of its overrides that not all jobs share."""
    rows = list(rows)
    shared = set.intersection(*(set(row.overrides) for row in rows)) if len(rows) > 1 else set()
    return [(row, " ".join(" ".join(item.split()) for item in row.overrides if item not in shared)) for row in rows]


def _print(rows: list[JobRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Jobs of the sweep")
    for heading in ("job", "overrides"):
        table.add_column(heading, overflow="fold")
    for heading in ("tokens/s", "sequences/s", "peak memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("status", overflow="fold")
    for row, overrides in _with_what_varies(rows):
        speeds = ["–" if x is None else f"{x:,.0f}" for x in (row.tokens_per_second, row.sequences_per_second)]
        memory = "–" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**20:,.0f} MiB"
        table.add_row(str(row.job), overrides, *speeds, memory, row.status)
    Console(stderr=True, markup=False, highlight=False, width=None if sys.stderr.isatty() else 160).print(table)


def _rows_folder(config: DictConfig) -> Path:
    return Path(config.hydra.sweep.dir).absolute() / _ROWS_FOLDER


def _read_rows(folder: Path) -> list[JobRow]:
    return sorted(JobRow(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json"))


def _write(path: Path, text: str) -> None:
    """Replace a file at once, so that a killed sweep leaves no half of it."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _free_memory() -> None:
    gc.collect()  # trainer and model refer to each other
    if torch := sys.modules.get("torch"):
        torch.cuda.empty_cache()
    return_freed_memory()
    with suppress(OSError):  # on Linux the process's peak memory counts from now on
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
