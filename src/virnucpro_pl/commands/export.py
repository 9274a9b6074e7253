"""The ``export`` command: a head for the published script."""

import logging
import os
from pathlib import Path

from omegaconf import DictConfig

from virnucpro_pl.configuration.hydra_config import build
from virnucpro_pl.errors import UserError, escaped, is_disk_full
from virnucpro_pl.models.weights.head_bundle import export_published
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.results.consensus import PUBLISHED_THRESHOLD
from virnucpro_pl.runs.output_folder import check_reads

log = logging.getLogger(__name__)


def export(cfg: DictConfig) -> float:
    """Write a head as a pickled module, which the published script loads.

    Returns:
        Width of the embeddings that the head takes.

    Raises:
        UserError: the published script cannot use the head, or the file exists or cannot be written.
        OSError: the disk is full.
    """
    source: HeadSource = build(cfg.model.head)
    head, info = source.load(), source.info()
    path = Path(cfg.output)
    if info and info.inputs != "both":
        raise UserError(
            f"model.head.weights={source.weights} takes {info.inputs} embeddings only; the published script has both"
        )
    try:
        _check_place(cfg, path)
        export_published(head, path)
    except OSError as error:
        if is_disk_full(error):
            raise OSError(error.errno, error.strerror, cfg.output) from error
        raise UserError(
            f"output={cfg.output}: cannot be written ({error.strerror}); give a file in another folder"
        ) from error
    log.info("Head for the published script: %s (%d numbers in%s)", path, head.num_inputs, _chunks(source))
    if info and info.threshold != PUBLISHED_THRESHOLD:
        log.warning("Warning: the published script calls from 0.5 on, and this head from %.4f", info.threshold)
    return float(head.num_inputs)


def _check_place(cfg: DictConfig, path: Path) -> None:
    """Check the name of the output file.

    Raises:
        UserError: the file is an input, exists, or is no ``.pth`` file.
        OSError: its folder cannot be searched.
    """
    check_reads(cfg, [path], f"output={escaped(cfg.output)}")
    if path.suffix != ".pth":
        raise UserError(f"output={cfg.output}: give the name of a .pth file, such as 300_model.pth")
    if path.is_dir():
        raise UserError(f"output={cfg.output} is a folder; give the name of a .pth file in it")
    if os.path.lexists(path) and not path.is_file():
        raise UserError(f"output={cfg.output} is a broken link or no regular file; give another name")
    if path.exists() and not cfg.overwrite:
        raise UserError(f"output={cfg.output} is there already; give another name, or overwrite=true")


def _chunks(source: HeadSource) -> str:
    """Return the lengths of the chunks that a head was trained on, as text; empty if they are unknown."""
    info = source.info()
    trained = source.trained_chunk_length()
    lengths = {*info.chunk_lengths} if info else {trained} if trained else set()
    return f", chunks of {' to '.join(map(str, sorted(lengths)))} nt" if lengths else ""
