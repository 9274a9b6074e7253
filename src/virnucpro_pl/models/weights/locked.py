"""Weights that the program fetched: kept to what they were the first time, and converted once."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from virnucpro_pl.errors import is_disk_full
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.models.weights.cache import cache_folder
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.models.weights.lock import WeightsLock

log = logging.getLogger(__name__)

_DTYPES = {"16": torch.float16, "bf16": torch.bfloat16}


def fetched_digest_cache(model: VirNucPro) -> Path | None:
    """File that keeps the digests of fetched weights, gigabytes of which are not read at every start; else None."""
    fetched = any(source.lock_name for source in model.sources().values())
    return cache_folder() / "digests.json" if fetched else None


def check_lock(model: VirNucPro, digests: Mapping[str, Mapping[str, str]]) -> None:
    """Compare fetched weights with what they were the first time.

    Args:
        model: whose weights.
        digests: SHA-256 of the files of each part.

    Raises:
        UserError: they are others.
    """
    lock = WeightsLock.here()
    for name, source in model.sources().items():
        if source.lock_name:
            lock.check(source.lock_name, digests[name])


def convert_fetched(model: VirNucPro, precision: Any) -> None:
    """Convert encoders that were fetched to what they compute in, so that every later start reads less.

    Without room for that they are read as they came.
    """
    dtype = dtype_of(precision)
    for source in model.sources().values():
        if isinstance(source, HeadSource) or not source.lock_name:
            continue
        try:
            source.convert(dtype)
        except OSError as error:
            why = "no space left" if is_disk_full(error) else error.strerror or type(error).__name__
            log.warning("%s is not converted: %s in %s; set VIRNUCPRO_CACHE", source.weights, why, cache_folder())


def dtype_of(precision: Any) -> torch.dtype:
    """Return what encoders are kept in at a precision of the trainer.

    >>> dtype_of("16-true"), dtype_of("bf16-true"), dtype_of("32-true"), dtype_of("16-mixed")
    (torch.float16, torch.bfloat16, torch.float32, torch.float32)
    """
    kind, _, how = str(precision).partition("-")
    return _DTYPES.get(kind, torch.float32) if how == "true" else torch.float32
