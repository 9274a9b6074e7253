"""The ``report`` command: report page and figures of a finished run."""

import json
import logging
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from virnucpro_pl.errors import UserError
from virnucpro_pl.files.digests import file_facts
from virnucpro_pl.files.durable import write_text
from virnucpro_pl.files.output_files import FIGURE_FILES, FIGURE_FORMATS, REPORT, RUN_FILE
from virnucpro_pl.reporting.figures import write_figures
from virnucpro_pl.reporting.page import write_report
from virnucpro_pl.results.publishing import check_results
from virnucpro_pl.results.run_check import finished_run
from virnucpro_pl.runs.output_folder import check_added

log = logging.getLogger(__name__)


def report(cfg: DictConfig) -> float:
    """Write the requested formats into the output folder of a ``predict`` and return the number of files.

    Raises:
        UserError: the folder holds no finished run, a format is unknown, or a sequence is not in the run.
    """
    if not cfg.output:
        raise UserError("output: give the folder of a finished predict: output=FOLDER")
    formats = [cfg.format] if isinstance(cfg.format, str) else list(cfg.format)
    if not formats:
        raise UserError(f"format=[]: choose from html, {', '.join(FIGURE_FORMATS)}")
    if unknown := [name for name in formats if name not in ("html", *FIGURE_FORMATS)]:
        raise UserError(f"format={','.join(map(str, unknown))}: choose from html, {', '.join(FIGURE_FORMATS)}")
    records = list(cfg.records) if isinstance(cfg.records, ListConfig) else [str(cfg.records)] if cfg.records else []
    folder = Path(cfg.output)
    images = [name for name in formats if name in FIGURE_FORMATS]
    pictures = [name for name in FIGURE_FILES if name.rpartition(".")[2] in images]
    run = finished_run(folder, "report")
    check_added(folder, [*([REPORT] if "html" in formats else []), *pictures])
    check_results(folder, run)
    written = []
    if "html" in formats:
        written.append(write_report(folder))
    if images:
        written += write_figures(folder, images, [str(name) for name in records], cfg.max_tracks)
    _note(folder, written)
    for path in written:
        log.info("%s", path)
    return float(len(written))


def _note(folder: Path, written: list[Path]) -> None:
    """Add files to the run record."""
    run = finished_run(folder, "report")
    for path in written:
        run["files"][str(path.relative_to(folder))] = file_facts(path)
    write_text(folder / RUN_FILE, json.dumps(run, indent=2) + "\n")
