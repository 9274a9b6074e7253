"""The ``report`` command: what a finished run has found, as a page to read or as figures for a paper."""

import logging

from omegaconf import DictConfig, ListConfig

from virnucpro_pl.errors import UserError
from virnucpro_pl.home_folder import user_path
from virnucpro_pl.reporting.figures import FORMATS, write_figures
from virnucpro_pl.reporting.page import write_report

log = logging.getLogger(__name__)


def report(cfg: DictConfig) -> float:
    """Write what is asked for into the output folder of a ``predict``; return the number of files.

    Raises:
        UserError: the folder holds no finished run, a format is unknown, or a record is not in it.
    """
    if not cfg.output:
        raise UserError("output: name the folder of a finished predict: output=FOLDER")
    formats = [cfg.format] if isinstance(cfg.format, str) else list(cfg.format)
    if unknown := [name for name in formats if name not in ("html", *FORMATS)]:
        raise UserError(f"format={','.join(map(str, unknown))}: choose of html, {', '.join(FORMATS)}")
    records = list(cfg.records) if isinstance(cfg.records, ListConfig) else [str(cfg.records)] if cfg.records else []
    folder = user_path(cfg.output)
    written = []
    if "html" in formats:
        written.append(write_report(folder))
    if images := [name for name in formats if name in FORMATS]:
        written += write_figures(folder, images, [str(name) for name in records], cfg.max_tracks)
    for path in written:
        log.info("%s", path)
    return float(len(written))
