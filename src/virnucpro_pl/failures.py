"""How a command's error is told: one line and an exit status."""

from omegaconf.errors import OmegaConfBaseException

from virnucpro_pl.errors import RunFailedError, UserError, escaped, is_disk_full
from virnucpro_pl.files.file_kinds import is_unexpected_kind

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def needs_no_traceback(error: BaseException) -> bool:
    """Whether one line says all there is to say of a failed run."""
    return isinstance(error, RunFailedError) or is_disk_full(error) or is_unexpected_kind(error)


def can_continue(error: BaseException) -> bool:
    """Whether the same command, given again, may get further."""
    return not isinstance(error, RunFailedError) or error.can_continue


def exit_status(error: BaseException) -> int:
    """Tell a user's mistake (2) from a failure of the run (1)."""
    if is_disk_full(error):
        return EXIT_FAILED
    mistake = isinstance(error, UserError | OmegaConfBaseException)
    return EXIT_USAGE if mistake else EXIT_FAILED


def one_line(error: BaseException) -> str:
    """Say what went wrong, in characters that a terminal shows.

    >>> one_line(KeyError("scores"))
    "KeyError: 'scores'"
    """
    if is_disk_full(error):
        return f"{_full_file(error)}no space left on the disk, or a limit of file sizes is reached; free some"
    if isinstance(error, OSError) and is_unexpected_kind(error):
        return f"{escaped(str(error.filename))}: {error.strerror}, which this program has not made; move it away"
    if isinstance(error, UserError | RunFailedError):
        prefix = ""
    else:
        prefix = "configuration: " if exit_status(error) == EXIT_USAGE else f"{type(error).__name__}: "
    return prefix + escaped(" ".join(str(error).split()))


def _full_file(error: BaseException | None) -> str:
    """Name the file that could not be written, where the error does."""
    while error is not None:
        if isinstance(error, OSError) and error.filename:
            return f"{error.filename}: "
        error = error.__cause__ or error.__context__
    return ""
