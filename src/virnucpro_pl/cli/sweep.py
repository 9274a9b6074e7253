"""What a sweep ends with: one table of its jobs. A Hydra callback; one job's failure does not stop the others."""

import gc
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl.configuration.text_settings import encoded, setting, shown
from virnucpro_pl.errors import OutOfMemoryError, UserError, escaped
from virnucpro_pl.failures import EXIT_FAILED, EXIT_USAGE, exit_status, one_line
from virnucpro_pl.host.memory import return_freed_memory
from virnucpro_pl.runs.output_folder import claim_default_folder

log = logging.getLogger(__name__)

SWEEP_TABLE = "sweep.tsv"
DONE, CACHED, OUT_OF_MEMORY, FAILED = "done", "done, with cached embeddings", "out of memory", "failed"
_ROWS_FOLDER = ".sweep"  # a launcher may run jobs in other processes, so their rows meet on disk
_ROW_FILE = re.compile(r"\d+\.json(\.tmp)?")


class JobRow(NamedTuple):
    """One job of a sweep; figures are None where the job did not end well."""

    job: int
    overrides: list[str]
    status: str
    """``done``, ``done, with cached embeddings`` (whose speed compares with no other), ``out of memory``, or
    ``failed: `` and why"""
    figures: dict[str, float]
    """By name, the one that jobs are compared by first; empty where the job did not end well"""
    exit_status: int = 0


class _Column(NamedTuple):
    """How a figure is shown."""

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
"""Figures by their names in ``run.json``.

Tokens are those of both encoders, sequences the ORFs embedded, both over the time of prediction; memory is the GPU's
where there is one, else of the process; the others are of the validation part.
"""


class SweepTable(Callback):
    """Compares the jobs of a sweep.

    After every job ``sweep.tsv`` in the sweep's folder is brought up to date; at the end a table goes to standard
    error, with the name of the best.

    A failed job becomes a row, and tells the sweeper minus infinity. The sweep ends with status 0 if
    every job was done or ran out of memory and at least one was done, with 2 if mistakes in the command or input were
    the only failures, else with 1.

    Args:
        run_file: what a job that was done leaves in its folder, with ``figures``.
        figures: names of those that are shown; the larger the first, which jobs return, the better.
    """

    def __init__(self, run_file: str, figures: Sequence[str]):
        self._run_file = run_file
        self._names = tuple(figures)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget the rows of an earlier sweep, and refuse to search for the worst job."""
        direction = str(OmegaConf.select(config, "hydra.sweeper.direction"))
        if direction.rpartition(".")[2].lower() == "minimize":
            heading = _COLUMNS[self._names[0]].heading
            _refuse(f"jobs return {heading}; use hydra.sweeper.direction=maximize")
        try:
            if config.output in ("-", config.paths.default_output):
                folder = claim_default_folder(config.paths.default_output)
                config.paths.default_output = encoded(folder)
                config.hydra.overrides.task.append(setting("paths.default_output", folder))  # for every job
            _check_folder(Path(config.hydra.sweep.dir))
        except UserError as error:
            _refuse(str(error))
        _remove_rows(_rows_folder(config))

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
        _write(folder.with_name(SWEEP_TABLE), tsv(_read_rows(folder), self._names))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table and, if a job failed, end with its exit status."""
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
        number, overrides = int(config.hydra.job.num), [*map(shown, job_return.overrides or [])]
        if job_return.status is JobStatus.FAILED:
            error: BaseException = job_return._return_value  # the property raises it
            status = OUT_OF_MEMORY if isinstance(error, OutOfMemoryError) else f"{FAILED}: {one_line(error)}"
            return JobRow(number, overrides, status, {}, exit_status(error))
        run = Path(config.paths.output_dir) / self._run_file
        figures = json.loads(run.read_text(encoding="utf-8"))["figures"]
        is_cached = any(encoder["cached"] for encoder in figures.get("encoders", {}).values())
        figures["peak_memory_bytes"] = figures.get("gpu_peak_memory_bytes") or figures.get("peak_memory_bytes")
        named = {name: figures[name] for name in self._names}
        return JobRow(number, overrides, CACHED if is_cached else DONE, named)


def tsv(rows: Iterable[JobRow], names: Sequence[str]) -> str:
    """Render the table of the figures of these names; ``NA`` where there is none."""
    lines = ["\t".join(["job", "overrides", *names, "status"])]
    for row, overrides in _with_what_varies(rows):
        cells = [str(row.figures.get(name, "NA")) for name in names]
        lines.append("\t".join([str(row.job), overrides, *cells, row.status]))
    return "\n".join(lines) + "\n"


def best_line(rows: list[JobRow], name: str) -> str:
    """Name the job with the largest figure of this name by what to type to have it again."""
    done = [(row, overrides) for row, overrides in _with_what_varies(rows) if row.status == DONE]
    if not done:
        cached = any(row.status == CACHED for row in rows)
        return "Best: none, no job computed all of its embeddings" if cached else "Best: none, no job finished"
    row, overrides = max(done, key=lambda pair: pair[0].figures[name])
    return f"Best: job {row.job} ({overrides}), {_shown(name, row)} {_COLUMNS[name].heading}"


def _shown(name: str, row: JobRow) -> str:
    column = _COLUMNS[name]
    return column.format.format(row.figures[name] / column.divisor) if name in row.figures else "–"


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
    return [
        (row, " ".join(escaped(" ".join(item.split())) for item in row.overrides if item not in shared)) for row in rows
    ]


def _refuse(reason: str) -> NoReturn:
    log.error("Error: %s", reason)
    sys.exit(EXIT_USAGE)


def _check_folder(folder: Path) -> None:
    """Refuse a folder whose table or rows of a sweep are not ours.

    Raises:
        UserError: it is not, or Hydra cannot take its name.
    """
    place = f"output={escaped(str(folder))}"
    if "${" in str(folder.absolute()):
        raise UserError(f"{place}: with -m, Hydra takes no folder with ${{ in its name; give another one")
    table = folder / SWEEP_TABLE
    is_own = table.is_file() and table.read_text(encoding="utf-8", errors="replace").startswith("job\toverrides\t")
    if os.path.lexists(table) and not is_own:
        raise UserError(
            f"{place}: holds {SWEEP_TABLE}, which no sweep has written; move it away, or give another folder"
        )
    rows = folder / _ROWS_FOLDER
    if os.path.lexists(rows) and not (
        rows.is_dir() and all(_ROW_FILE.fullmatch(path.name) and not path.is_dir() for path in rows.iterdir())
    ):
        raise UserError(
            f"{place}: holds {_ROWS_FOLDER}, which no sweep has written; move it away, or give another folder"
        )


def _remove_rows(folder: Path) -> None:
    for path in folder.glob("*"):
        path.unlink()
    with suppress(FileNotFoundError):
        folder.rmdir()


def _print(rows: list[JobRow], names: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Jobs of the sweep")
    for heading in ("job", "overrides"):
        table.add_column(heading, overflow="fold")
    for name in names:
        table.add_column(_COLUMNS[name].heading, justify="right", no_wrap=True)
    table.add_column("status", overflow="fold")
    for row, overrides in _with_what_varies(rows):
        table.add_row(str(row.job), overrides, *(_shown(name, row) for name in names), row.status)
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
