"""Where the program keeps what it fetched or converted by itself; files of the hub lie in the hub's own cache."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Folder of fetched heads, imported and converted weights: ``VIRNUCPRO_CACHE``, else below the user's cache."""
    if given := os.environ.get("VIRNUCPRO_CACHE"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "virnucpro_pl"


def files_folder(name: str, revision: str | None) -> Path:
    """Folder of the files of one revision of a repository, however they came there.

    >>> files_folder("owner/name", "abc").parts[-3:]
    ('weights', 'owner--name', 'abc')
    """
    return cache_folder() / "weights" / name.replace("/", "--") / (revision or "main")


def is_offline() -> bool:
    """Whether nothing may be fetched."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
