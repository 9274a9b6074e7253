"""Files and folders that are something else than expected: folders, broken links, pipes."""

import errno
import stat
from collections.abc import Iterable
from pathlib import Path

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.output_files import FOLDERS

_FILE, _FOLDER = "a file", "a folder"


def unexpected_kind(path: Path, is_folder: bool = False) -> str | None:
    """Return what a path is if it is neither missing nor what is expected there, else None.

    Opening a named pipe would wait for a writer, so the kind is checked before.

    Args:
        path: links are followed.
        is_folder: a folder is expected, not a file.

    >>> unexpected_kind(Path("/dev/null"))
    'a pipe or device'
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads back to itself"
        return "a link to nothing" if path.is_symlink() else None
    kind = _FOLDER if stat.S_ISDIR(mode) else _FILE if stat.S_ISREG(mode) else "a pipe or device"
    return None if kind == (_FOLDER if is_folder else _FILE) else kind


def check_kinds(folder: Path, names: Iterable[str]) -> None:
    """Refuse files where a command keeps folders, and the other way round.

    Args:
        folder: an output folder.
        names: paths of files and folders within it.

    Raises:
        UserError: one of them is something else.
    """
    for name in names:
        is_folder = name in FOLDERS
        if kind := unexpected_kind(folder / name, is_folder):
            raise UserError(
                f"output={escaped(str(folder))}: {escaped(name)} is {kind}, not {_FOLDER if is_folder else _FILE};"
                " move it away"
            )


def is_unexpected_kind(error: BaseException) -> bool:
    """Return whether an error says that something else than a file or folder of this program lies in its place.

    >>> is_unexpected_kind(IsADirectoryError(errno.EISDIR, "Is a directory", "scores"))
    True
    """
    kinds = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EEXIST)
    return isinstance(error, OSError) and error.errno in kinds and bool(error.filename)
