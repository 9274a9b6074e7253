"""Results on standard output."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virnucpro_pl.errors import RunFailedError, UserError
from virnucpro_pl.host.standard_streams import stdout_was_closed

EXIT_PIPE_CLOSED = 128 + signal.SIGPIPE


@contextmanager
def results_on_standard_output() -> Iterator[None]:
    """Write results to standard output and flush them.

    Raises:
        UserError: standard output is closed.
        RunFailedError: standard output cannot be written, for instance on a full disk.
        SystemExit: the reader has closed the pipe, as ``head`` does; status 141, as of ``cat``.
    """
    check_standard_output()
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        stop_writing()
        sys.exit(EXIT_PIPE_CLOSED)
    except OSError as error:
        if error.filename is not None:  # another file
            raise
        stop_writing()
        error.filename = "standard output"
        raise RunFailedError(f"standard output cannot be written: {error.strerror}") from error


def check_standard_output() -> None:
    """Raise UserError if standard output is closed."""
    if stdout_was_closed():
        raise UserError("standard output is closed, and the results go there; redirect it to a file")


def copy_to_standard_output(path: Path) -> None:
    """Copy a file to standard output.

    Raises:
        UserError: standard output is closed.
        RunFailedError: standard output cannot be written.
        SystemExit: the reader has closed the pipe.
    """
    with results_on_standard_output(), path.open("rb") as file:
        sys.stdout.flush()
        shutil.copyfileobj(file, sys.stdout.buffer)


def stop_writing() -> None:
    """Redirect standard output to nothing, so that Python reports no failed flush at its exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
