"""Hydra callback that compares the jobs of a sweep in one table."""

import gc
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl.cli.hydra_files import foreign_file, refuse
from virnucpro_pl.configuration.hydra_internals import job_error
from virnucpro_pl.configuration.text_settings import as_typed, encoded, typed_override
from virnucpro_pl.errors import OutOfMemoryError, UserError, escaped
from virnucpro_pl.failures import EXIT_FAILED, EXIT_USAGE, exit_status, one_line
from virnucpro_pl.files.durable import write_text
from virnucpro_pl.host.memory import return_freed_memory
from virnucpro_pl.runs.output_folder import claim_default_folder

log = logging.getLogger(__name__)

SWEEP_TABLE = "sweep.tsv"
DONE, CACHED, OUT_OF_MEMORY, FAILED = "done", "done, with cached embeddings", "out of memory", "failed"
_ROWS_FOLDER = ".sweep"
"""Folder of the rows of finished jobs, which a launcher may run in other processes"""
_ROW_FILE = re.compile(r"\d+\.json(\..*tmp)?")


class JobRow(NamedTuple):
    """Row of a job in the table."""

    job: int
    overrides: list[str]
    status: str
    """``done``, ``done, with cached embeddings`` (not comparable in speed), ``out of memory`` or ``failed: REASON``"""
    metrics: dict[str, float]
    """Metrics by name; empty if the job failed"""
    exit_status: int = 0


class _Column(NamedTuple):
    """Presentation of a metric."""

    heading: str
    format: str
    divisor: int = 1


_COLUMNS = {
    "tokens_per_second": _Column("tokens/s", "{:,.0f}"),
    "sequences_per_second": _Column("sequences/s", "{:,.0f}"),
    "peak_memory_bytes": _Column("peak memory", "{:,.0f} MiB", 1 << 20),
    "val_average_precision": _Column("average precision", "{:.4f}"),
    "val_auroc": _Column("AUROC", "{:.4f}"),
    "val_loss": _Column("loss", "{:.4f}"),
    "epochs": _Column("epochs", "{:.0f}"),
}
"""Metrics by their name in ``run.json``.

Tokens of both encoders and embedded ORFs are divided by the time of prediction. Memory is that of the GPU, or of the
process if there is none. The others are metrics of the validation split.
"""


class SweepTable(Callback):
    """Table of the jobs of a sweep.

    ``sweep.tsv`` in the folder of the sweep is written after each job; the table is printed at the end, with the best
    job. A failed job is a row and returns minus infinity to the sweeper. The exit status is 0 if at least one job is
    done and no job failed other than by lack of memory, 2 if all failures are mistakes of the user, else 1.

    Args:
        run_file: JSON file with ``figures`` in the folder of a finished job.
        figures: names of the metrics in the table; jobs return the first, and larger is better.
    """

    def __init__(self, run_file: str, figures: Sequence[str]):
        self._run_file = run_file
        self._names = tuple(figures)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check direction and folder of the sweep, and delete the rows of an earlier sweep."""
        direction = str(OmegaConf.select(config, "hydra.sweeper.direction"))
        if direction.rpartition(".")[2].lower() == "minimize":
            refuse(f"jobs return {_COLUMNS[self._names[0]].heading}; use hydra.sweeper.direction=maximize")
        try:
            if config.output in ("-", config.paths.default_output):
                folder = claim_default_folder(config.paths.default_output)
                config.paths.default_output = encoded(folder)
                config.hydra.overrides.task.append(typed_override("paths.default_output", folder))  # for every job
            _check_folder(Path(config.hydra.sweep.dir))
        except UserError as error:
            refuse(str(error))
        _remove_rows(_rows_folder(config))

    def on_job_start(self, config: DictConfig, *, task_function: TaskFunction, **kwargs: Any) -> None:
        """Free the memory of the previous job, so that each job has all memory and a peak of its own."""
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        gc.collect()  # trainer and model refer to each other
        if torch := sys.modules.get("torch"):
            torch.cuda.empty_cache()
        return_freed_memory()
        with suppress(OSError):  # Linux measures the peak memory of the process from here
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

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
        write_text(folder / f"{row.job}.json", json.dumps(row._asdict()))
        write_text(folder.with_name(SWEEP_TABLE), tsv(_read_rows(folder), self._names))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table, and exit with an error if a job failed."""
        folder = _rows_folder(config)
        rows = _read_rows(folder)
        _remove_rows(folder)
        if not rows:
            return
        _print(rows, self._names)
        log.info("%s", best_line(rows, self._names[0]))
        log.info("Comparison: %s", folder.with_name(SWEEP_TABLE))
        if status := sweep_exit_status(rows):
            sys.exit(status)

    def _row(self, config: DictConfig, job_return: JobReturn) -> JobRow:
        number, overrides = int(config.hydra.job.num), [*map(as_typed, job_return.overrides or [])]
        if job_return.status is JobStatus.FAILED:
            error = job_error(job_return)
            status = OUT_OF_MEMORY if isinstance(error, OutOfMemoryError) else f"{FAILED}: {one_line(error)}"
            return JobRow(number, overrides, status, {}, exit_status(error))
        run = Path(config.paths.output_dir) / self._run_file
        metrics = json.loads(run.read_text(encoding="utf-8"))["figures"]
        is_cached = any(encoder["cached"] for encoder in metrics.get("encoders", {}).values())
        metrics["peak_memory_bytes"] = metrics.get("gpu_peak_memory_bytes") or metrics.get("peak_memory_bytes")
        chosen = {name: metrics[name] for name in self._names}
        return JobRow(number, overrides, CACHED if is_cached else DONE, chosen)


def tsv(rows: Sequence[JobRow], names: Sequence[str]) -> str:
    """Return the table with the metrics of these names; missing ones are ``NA``."""
    lines = ["\t".join(["job", "overrides", *names, "status"])]
    for row, overrides in _with_differences(rows):
        cells = [str(row.metrics.get(name, "NA")) for name in names]
        lines.append("\t".join([str(row.job), overrides, *cells, row.status]))
    return "\n".join(lines) + "\n"


def best_line(rows: Sequence[JobRow], name: str) -> str:
    """Return a line that names the job with the largest value of a metric, and its settings."""
    done = [(row, overrides) for row, overrides in _with_differences(rows) if row.status == DONE]
    if not done:
        has_cached = any(row.status == CACHED for row in rows)
        return "Best: none, no job computed all of its embeddings" if has_cached else "Best: none, no job finished"
    row, overrides = max(done, key=lambda pair: pair[0].metrics[name])
    return f"Best: job {row.job} ({overrides}), {_formatted(name, row)} {_COLUMNS[name].heading}"


def _formatted(name: str, row: JobRow) -> str:
    column = _COLUMNS[name]
    return column.format.format(row.metrics[name] / column.divisor) if name in row.metrics else "–"


def sweep_exit_status(rows: Sequence[JobRow]) -> int:
    """Return the exit status of a sweep; lack of memory is no failure if another job is done."""
    failed = {row.exit_status for row in rows if row.status not in (DONE, CACHED, OUT_OF_MEMORY)}
    if failed:
        return EXIT_USAGE if failed == {EXIT_USAGE} else EXIT_FAILED
    return 0 if any(row.status in (DONE, CACHED) for row in rows) else EXIT_FAILED


def _with_differences(rows: Sequence[JobRow]) -> list[tuple[JobRow, str]]:
    """Return each job with the overrides that not all jobs share."""
    shared = set.intersection(*(set(row.overrides) for row in rows)) if len(rows) > 1 else set()
    return [
        (row, " ".join(escaped(" ".join(item.split())) for item in row.overrides if item not in shared)) for row in rows
    ]


def _check_folder(folder: Path) -> None:
    """Check that the files that a sweep replaces are its own.

    Raises:
        UserError: they are not, or Hydra cannot use the name of the folder.
    """
    if "${" in str(folder.absolute()):
        raise UserError(
            f"output={escaped(str(folder))}: with -m, Hydra takes no folder with ${{ in its name; give another one"
        )
    table = folder / SWEEP_TABLE
    is_own = table.is_file() and table.read_text(encoding="utf-8", errors="replace").startswith("job\toverrides\t")
    if os.path.lexists(table) and not is_own:
        raise UserError(foreign_file(folder, SWEEP_TABLE))
    rows = folder / _ROWS_FOLDER
    is_own = rows.is_dir() and all(_ROW_FILE.fullmatch(path.name) and not path.is_dir() for path in rows.iterdir())
    if os.path.lexists(rows) and not is_own:
        raise UserError(foreign_file(folder, _ROWS_FOLDER))


def _remove_rows(folder: Path) -> None:
    for path in folder.glob("*"):
        path.unlink()
    with suppress(FileNotFoundError):
        folder.rmdir()


def _print(rows: Sequence[JobRow], names: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Jobs of the sweep")
    for heading in ("job", "overrides"):
        table.add_column(heading, overflow="fold")
    for name in names:
        table.add_column(_COLUMNS[name].heading, justify="right", no_wrap=True)
    table.add_column("status", overflow="fold")
    for row, overrides in _with_differences(rows):
        table.add_row(str(row.job), overrides, *(_formatted(name, row) for name in names), row.status)
    Console(stderr=True, markup=False, highlight=False, width=None if sys.stderr.isatty() else 160).print(table)


def _rows_folder(config: DictConfig) -> Path:
    return Path(config.hydra.sweep.dir).absolute() / _ROWS_FOLDER


def _read_rows(folder: Path) -> list[JobRow]:
    return sorted(JobRow(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json"))
