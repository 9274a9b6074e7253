"""Standard streams that may be closed or have any encoding."""

import io
import os
import stat
import sys

from virnucpro_pl.errors import ESCAPE

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


_closed: set[int] = set()


def stdin_was_closed() -> bool:
    """Return whether the parent process has closed standard input."""
    return 0 in _closed


def stdout_was_closed() -> bool:
    """Return whether the parent process has closed standard output."""
    return 1 in _closed


def stdin_may_hold_data() -> bool:
    """Return whether standard input is a pipe, or a file with unread content.

    Nothing is read. An empty pipe counts, too, because its writer may start later than this program.
    """
    if stdin_was_closed():
        return False
    status = os.fstat(0)
    if stat.S_ISREG(status.st_mode):
        return os.lseek(0, 0, os.SEEK_CUR) < status.st_size
    return stat.S_ISFIFO(status.st_mode)


def prepare_streams() -> None:
    """Open closed standard streams on ``/dev/null``, and escape characters that the others cannot encode.

    Otherwise the next opened file would get the number of a closed stream, and libraries would print into it.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        _open_if_closed(number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - open until the exit
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
