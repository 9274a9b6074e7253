"""Standard input, output and error: usable whatever the parent process has closed, and whatever they encode."""

import io
import os
import sys

from virnucpro_pl.errors import ESCAPE

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


_stdin_was_closed = False


def stdin_was_closed() -> bool:
    """Return whether the parent process has closed standard input, where nothing is read now."""
    return _stdin_was_closed


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
        if number == 0:
            global _stdin_was_closed
            _stdin_was_closed = True
        nothing = os.open(os.devnull, os.O_RDWR)
        if nothing != number:
            os.dup2(nothing, number)
            os.close(nothing)
        os.set_inheritable(number, True)
