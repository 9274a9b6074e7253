"""Downloaded weights: checked against the lock file, and converted once."""

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
    """Return the digest cache of downloaded weights, None if no weights were downloaded."""
    fetched = any(source.lock_name for source in model.sources().values())
    return cache_folder() / "digests.json" if fetched else None


def check_lock(model: VirNucPro, digests: Mapping[str, Mapping[str, str]]) -> None:
    """Compare downloaded weights with the lock file.

    Args:
        model: model that uses the weights.
        digests: SHA-256 of the files of each source.

    Raises:
        UserError: a file was changed.
    """
    lock = WeightsLock.here()
    for name, source in model.sources().items():
        if source.lock_name:
            lock.check(source.lock_name, digests[name])


def convert_fetched(model: VirNucPro, precision: Any) -> None:
    """Convert downloaded encoders to the dtype of the computation, so that later starts read less.

    On a full disk they are not converted.
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
    """Return the dtype of converted encoders at a precision of the trainer.

    >>> dtype_of("16-true"), dtype_of("bf16-true"), dtype_of("32-true"), dtype_of("16-mixed")
    (torch.float16, torch.bfloat16, torch.float32, torch.float32)
    """
    kind, _, how = str(precision).partition("-")
    return _DTYPES.get(kind, torch.float32) if how == "true" else torch.float32
