"""Standard input, output and error: usable whatever the parent process has closed, and whatever they encode."""

import io
import os
import stat
import sys

from virnucpro_pl.errors import ESCAPE

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


_closed: set[int] = set()


def stdin_was_closed() -> bool:
    """Return whether the parent process has closed standard input, where nothing is read now."""
    return 0 in _closed


def stdout_was_closed() -> bool:
    """Return whether the parent process has closed standard output, where everything written is lost now."""
    return 1 in _closed


def stdin_may_hold_data() -> bool:
    """Return whether standard input is a pipe, or a file with unread content.

    Nothing is read. A pipe counts even while it is empty, since its writer may be slower to start than this program.
    """
    if stdin_was_closed():
        return False
    status = os.fstat(0)
    if stat.S_ISREG(status.st_mode):
        return os.lseek(0, 0, os.SEEK_CUR) < status.st_size
    return stat.S_ISFIFO(status.st_mode)


def prepare_streams() -> None:
    """Open the standard streams that are closed on nothing, and let the others escape what they cannot encode.

    Without the first, the next file that is opened would get the number of a closed stream, and what a library prints
    there would end up in that file.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        _open_if_closed(number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPE)


def _open_if_closed(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        _closed.add(number)
        nothing = os.open(os.devnull, os.O_RDWR)
        if nothing != number:
            os.dup2(nothing, number)
            os.close(nothing)
        os.set_inheritable(number, True)
