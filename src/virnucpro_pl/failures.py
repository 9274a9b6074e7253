"""Exit status and one-line message of an error."""

import errno

from omegaconf.errors import OmegaConfBaseException

from virnucpro_pl.errors import RunFailedError, UserError, escaped, is_disk_full
from virnucpro_pl.files.file_kinds import is_unexpected_kind

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def needs_no_traceback(error: BaseException) -> bool:
    """Return whether one line explains a failed run."""
    return isinstance(error, RunFailedError) or is_disk_full(error) or is_unexpected_kind(error)


def can_continue(error: BaseException) -> bool:
    """Return whether starting the same command again may get further."""
    return not isinstance(error, RunFailedError) or error.can_continue


def exit_status(error: BaseException) -> int:
    """Return 2 for a mistake of the user, 1 for a failed run."""
    is_mistake = isinstance(error, UserError | OmegaConfBaseException) or _is_forbidden(error)
    is_mistake = is_mistake and not is_disk_full(error)
    return EXIT_USAGE if is_mistake else EXIT_FAILED


def one_line(error: BaseException) -> str:
    """Return an error as one line of printable characters.

    >>> one_line(KeyError("scores"))
    "KeyError: 'scores'"
    """
    if is_disk_full(error):
        return f"{_file_of(error)}no space left on the disk, or a limit of file sizes is reached; free some"
    if isinstance(error, OSError) and _is_forbidden(error):
        return f"{_file_of(error)}{error.strerror}; make it writable, or give another folder"
    if isinstance(error, OSError) and is_unexpected_kind(error):
        return f"{escaped(str(error.filename))}: {error.strerror}, which this program has not made; move it away"
    if isinstance(error, UserError | RunFailedError):
        prefix = ""
    else:
        prefix = "configuration: " if exit_status(error) == EXIT_USAGE else f"{type(error).__name__}: "
    return prefix + escaped(" ".join(str(error).split()))


def _is_forbidden(error: BaseException) -> bool:
    """Return whether a file may not be written, as in a read-only folder."""
    return isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def _file_of(error: BaseException | None) -> str:
    """Return the file named by an error or its causes, as a prefix."""
    while error is not None:
        if isinstance(error, OSError) and error.filename:
            return f"{error.filename}: "
        error = error.__cause__ or error.__context__
    return ""
