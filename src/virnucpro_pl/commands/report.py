"""The ``report`` command: report page and figures of a finished run."""

import json
import logging
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from virnucpro_pl.errors import UserError
from virnucpro_pl.files.digests import file_facts
from virnucpro_pl.files.durable import announced_to, write_text
from virnucpro_pl.files.output_files import FIGURE_FILES, FIGURE_FORMATS, REPORT, RUN_FILE
from virnucpro_pl.reporting.figures import write_figures
from virnucpro_pl.reporting.page import write_report
from virnucpro_pl.results.publishing import check_results
from virnucpro_pl.results.run_check import finished_run
from virnucpro_pl.runs.output_folder import check_added
from virnucpro_pl.runs.record_types import RunRecord

log = logging.getLogger(__name__)


def report(cfg: DictConfig) -> float:
    """Write the requested formats into the output folder of a ``predict`` and return the number of files.

    Raises:
        UserError: the folder holds no finished run, a format is unknown, or a sequence is not in the run.
    """
    if not cfg.output:
        raise UserError("output: give the folder of a finished predict: output=FOLDER")
    formats = list(cfg.format) if isinstance(cfg.format, ListConfig) else [cfg.format] if cfg.format else []
    if not formats:
        raise UserError(f"format={cfg.format}: choose from html, {', '.join(FIGURE_FORMATS)}")
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
    with announced_to(partial(_note, folder, run)):
        if images:  # first, as it finds out whether the sequences exist
            written += write_figures(folder, images, [str(name) for name in records], cfg.max_tracks)
        if "html" in formats:
            written.append(write_report(folder))
    for path in written:
        log.info("%s", path)
    return float(len(written))


def _note(folder: Path, run: RunRecord, unfinished: Path, path: Path) -> None:
    """Add a complete file to the run record before it is renamed, so that a killed command leaves no unknown file."""
    if path.name != RUN_FILE:
        run["files"][str(path.relative_to(folder))] = file_facts(unfinished)
        write_text(folder / RUN_FILE, json.dumps(run, indent=2) + "\n")
