"""How a command's error is told: one line and an exit status."""

from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException

from virnucpro_pl.errors import OutOfMemoryError, UserError, escaped

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def exit_status(error: BaseException) -> int:
    """Tell a user's mistake (2) from a failure of the run (1)."""
    mistake = isinstance(error, UserError | InstantiationException | OmegaConfBaseException)
    return EXIT_USAGE if mistake else EXIT_FAILED


def one_line(error: BaseException) -> str:
    """Say what went wrong, in characters that a terminal shows; Hydra wraps what a constructor raises.

    >>> one_line(KeyError("scores"))
    "KeyError: 'scores'"
    """
    cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
    if isinstance(cause, UserError | OutOfMemoryError):
        prefix = ""
    else:
        prefix = "configuration: " if exit_status(error) == EXIT_USAGE else f"{type(cause).__name__}: "
    return prefix + escaped(" ".join(str(cause).split()))
