"""Giving a result file on standard output."""

import os
import shutil
import signal
import sys
from pathlib import Path

EXIT_PIPE_CLOSED = 128 + signal.SIGPIPE


def copy_to_standard_output(path: Path) -> None:
    """Copy a file as it is.

    Raises:
        SystemExit: whoever read has closed the pipe, as ``head`` does; with the status that ``cat`` has then.
    """
    sys.stdout.flush()
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()
    except BrokenPipeError:
        stop_writing()
        sys.exit(EXIT_PIPE_CLOSED)


def stop_writing() -> None:
    """Send what is left to nowhere, or Python tells, at its end, of what it could not flush."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
