"""Detection of paths of an unexpected kind: folders, broken links, pipes."""

import errno
import stat
from collections.abc import Iterable
from pathlib import Path

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.output_files import FOLDERS

_FILE, _FOLDER = "a file", "a folder"


def unexpected_kind(path: Path, is_folder: bool = False) -> str | None:
    """Return the kind of a path, or None if the path is missing or of the expected kind.

    Checking first is necessary because opening a named pipe waits for a writer.

    Args:
        path: the path; links are followed.
        is_folder: expect a folder instead of a file.

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
    """Check that files of an output folder are files, and folders are folders.

    Names are paths in the folder, which may be missing.

    Raises:
        UserError: one is of another kind.
    """
    for name in names:
        is_folder = name in FOLDERS
        if kind := unexpected_kind(folder / name, is_folder):
            raise UserError(
                f"output={escaped(str(folder))}: {escaped(name)} is {kind}, not {_FOLDER if is_folder else _FILE};"
                " move it away"
            )


def is_unexpected_kind(error: BaseException) -> bool:
    """Return whether an error was caused by a path of an unexpected kind.

    >>> is_unexpected_kind(IsADirectoryError(errno.EISDIR, "Is a directory", "scores"))
    True
    """
    kinds = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EEXIST)
    return isinstance(error, OSError) and error.errno in kinds and bool(error.filename)
