"""The user's home folder: ``~`` in paths, and where libraries keep caches when the home cannot be written."""

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_CACHES = {"MPLCONFIGDIR": "matplotlib", "TRITON_CACHE_DIR": "triton"}


def user_path(text: str | Path) -> Path:
    """Return a path that a user gave, with ``~`` as the home folder.

    Where there is no such home, ``~`` is part of a name: ``Path.expanduser`` would raise RuntimeError.

    >>> user_path("~nobody of this name/x")
    PosixPath('~nobody of this name/x')
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111


def provide_caches() -> None:
    """Give libraries a cache folder of this process's own where the home folder cannot be written.

    Matplotlib would warn at every start, and Triton could not compile.
    """
    if os.access(user_path("~"), os.W_OK):
        return
    missing = {variable: name for variable, name in _CACHES.items() if variable not in os.environ}
    with suppress(OSError):
        folder = Path(tempfile.mkdtemp(prefix="virnucpro-caches-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ |= {variable: str(folder / name) for variable, name in missing.items()}
