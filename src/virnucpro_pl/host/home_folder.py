"""The user's home folder: ``~`` in paths, and caches of libraries if the home folder is read-only."""

import atexit
import getpass
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_CACHES = {"MPLCONFIGDIR": "matplotlib", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}


def user_path(text: str | Path) -> Path:
    """Return a path with ``~`` replaced by the home folder.

    Without such a home folder, ``~`` is part of the name; ``Path.expanduser`` would raise RuntimeError.

    >>> user_path("~nobody of this name/x")
    PosixPath('~nobody of this name/x')
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111


def provide_caches() -> None:
    """Set cache folders of libraries to a temporary folder if the home folder is read-only.

    Otherwise Matplotlib warns at every start, Triton cannot compile, and torch raises KeyError for a user without a
    name when its compiler is imported.
    """
    if os.access(user_path("~"), os.W_OK) and _has_name():
        return
    missing = {variable: name for variable, name in _CACHES.items() if variable not in os.environ}
    with suppress(OSError):
        folder = Path(tempfile.mkdtemp(prefix="virnucpro-caches-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ |= {variable: str(folder / name) for variable, name in missing.items()}


def _has_name() -> bool:
    try:
        getpass.getuser()
    except (KeyError, OSError):
        return False
    return True
