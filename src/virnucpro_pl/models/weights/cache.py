"""Cache folder of downloaded heads, imported and converted weights; the hub's client has its own cache."""

import os
from pathlib import Path

from virnucpro_pl.errors import UserError
from virnucpro_pl.host.home_folder import user_path

_NO_HOME = Path(os.devnull) / "no home folder"  # a path that cannot exist


def cache_folder() -> Path:
    """Return the cache folder: ``VIRNUCPRO_CACHE``, or a folder in the user's cache.

    Without a home folder it is a path that cannot exist.
    """
    if given := os.environ.get("VIRNUCPRO_CACHE"):
        return user_path(given)
    base = user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return (_NO_HOME if base.parts[0] == "~" else base) / "virnucpro_pl"


def check_home(folder: Path, variable: str) -> None:
    """Raise UserError if a cache lies in a home folder that does not exist.

    Args:
        folder: cache folder.
        variable: environment variable that sets another cache folder.
    """
    if folder.parts[0] == "~" or folder.is_relative_to(_NO_HOME):
        raise UserError(f"no home folder to keep weights in: HOME is not set; set {variable} to a folder")


def files_folder(name: str, revision: str | None) -> Path:
    """Return the folder of the files of one revision of a repository.

    >>> files_folder("owner/name", "abc").parts[-3:]
    ('weights', 'owner--name', 'abc')
    """
    return cache_folder() / "weights" / name.replace("/", "--") / (revision or "main")


def is_offline() -> bool:
    """Return whether downloads are disabled."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
