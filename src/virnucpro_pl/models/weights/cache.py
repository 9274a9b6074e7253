"""Where the program keeps what it fetched or converted by itself; files of the hub lie in the hub's own cache."""

import os
from pathlib import Path

from virnucpro_pl.errors import UserError
from virnucpro_pl.host.home_folder import user_path

_NO_HOME = Path(os.devnull) / "no home folder"  # nothing is ever there, and nothing can be written there


def cache_folder() -> Path:
    """Return the folder of fetched heads, imported and converted weights.

    ``VIRNUCPRO_CACHE``, else a folder in the user's cache. For a user without a home folder it is one that cannot be.
    """
    if given := os.environ.get("VIRNUCPRO_CACHE"):
        return user_path(given)
    base = user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return (_NO_HOME if base.parts[0] == "~" else base) / "virnucpro_pl"


def check_home(folder: Path, variable: str) -> None:
    """Refuse a cache in the home folder of a user who has none.

    Args:
        folder: the cache.
        variable: environment variable that names another one.

    Raises:
        UserError: there is no such home folder.
    """
    if folder.parts[0] == "~" or folder.is_relative_to(_NO_HOME):
        raise UserError(f"no home folder to keep weights in: HOME is not set; set {variable} to a folder")


def files_folder(name: str, revision: str | None) -> Path:
    """Folder of the files of one revision of a repository, however they came there.

    >>> files_folder("owner/name", "abc").parts[-3:]
    ('weights', 'owner--name', 'abc')
    """
    return cache_folder() / "weights" / name.replace("/", "--") / (revision or "main")


def is_offline() -> bool:
    """Whether nothing may be fetched."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
