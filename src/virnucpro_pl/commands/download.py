"""The ``download`` command: genomes and their annotation from a RefSeq release."""

import logging
from pathlib import Path
from typing import Any

import httpx2
from omegaconf import DictConfig, ListConfig, OmegaConf

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.fetching.polite_http import Patience, PoliteClient
from virnucpro_pl.files.folder_lock import alone_in
from virnucpro_pl.training.download_record import RECORD, TABLE, Selection
from virnucpro_pl.training.refseq import wanted_counts
from virnucpro_pl.training.release_download import download as download_release

log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 3
_LOCK = ".download.lock"


def download(cfg: DictConfig) -> float:
    """Download the requested files and return their number.

    Raises:
        UserError: the configuration has a mistake.
        DownloadError: the server or the network failed; the same command resumes.
    """
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every request
    if not cfg.output:
        raise UserError("output: give a folder for the files: output=FOLDER")
    selection, patience, connections = _selection(cfg), _patience(cfg), cfg.connections
    if connections not in range(1, _MOST_CONNECTIONS + 1):
        raise UserError(f"connections={connections}: a number from 1 to {_MOST_CONNECTIONS}")
    folder = Path(cfg.output)
    with alone_in(folder, _LOCK), PoliteClient(patience) as client:
        plan = download_release(selection, folder, client, connections)
    log.info(
        "Complete: %d files of RefSeq release %d in %s (%s, %s)", len(plan.files), plan.release, folder, TABLE, RECORD
    )
    log.info("Next: python -m virnucpro_pl prepare input=%s output=DATASET", folder / TABLE)
    return float(len(plan.files))


def _selection(cfg: DictConfig) -> Selection:
    divisions = cfg.divisions
    if isinstance(divisions, str):
        divisions = [divisions]
    if divisions is not None and not isinstance(divisions, ListConfig | list):
        raise UserError("divisions: a list of names, such as divisions=[viral,bacteria]")
    counts = OmegaConf.to_container(cfg.files)
    assert isinstance(counts, dict)
    if not _is_number(cfg.seed, whole=True):
        raise UserError(f"seed={cfg.seed}: a whole number, 0 or more")
    names = None if divisions is None else list(map(str, divisions))
    wanted = wanted_counts(names, cfg.files_per_division, {str(name): count for name, count in counts.items()})
    return Selection(_address(str(cfg.source)), wanted, cfg.seed)


def _address(source: str) -> str:
    """Return the URL of the release, with / at its end."""
    try:
        url = httpx2.URL(source)
    except httpx2.InvalidURL as error:
        raise UserError(f"source={escaped(source)}: not an address ({error})") from error
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or url.userinfo:
        raise UserError(f"source={escaped(source)}: not an address such as https://HOST/refseq/release/")
    return source.rstrip("/") + "/"


def _patience(cfg: DictConfig) -> Patience:
    settings = {str(name): value for name, value in cfg.patience.items()}
    for name, value in settings.items():
        if not _is_number(value, whole=name == "retries") or (name.endswith("timeout") and value == 0):
            raise UserError(f"patience.{name}={value}: a number {'above 0' if name.endswith('timeout') else 'from 0'}")
    return Patience(**settings)


def _is_number(value: Any, whole: bool) -> bool:
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    return is_number and value >= 0
