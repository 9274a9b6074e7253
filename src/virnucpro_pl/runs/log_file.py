"""The log file of a run; errors while writing it do not end the run."""

import logging
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from virnucpro_pl.errors import ESCAPE, UserError, escaped

_LOG_LINE = re.compile(rb"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ virnucpro_pl[.:]", re.MULTILINE)
_HEAD_BYTES = 1 << 16


class LogFile(logging.FileHandler):
    """File handler that stops when its file cannot be written, for instance on a full disk.

    Args:
        filename: log file, in UTF-8 whatever the locale.
        delay: open the file at the first record.
    """

    _silent = False

    def __init__(self, filename: str | Path, delay: bool = False):
        super().__init__(filename, encoding="utf-8", errors=ESCAPE, delay=delay)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, if possible."""
        if self._silent:
            return
        try:
            super().emit(record)
        except OSError:  # when opening the file
            self._give_up()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Stop if the file cannot be written; report a mistake in a log call."""
        if isinstance(sys.exc_info()[1], OSError):
            self._give_up()
        else:
            super().handleError(record)

    def _give_up(self) -> None:
        self._silent = True
        with suppress(OSError):  # the buffer cannot be written either
            self.close()


def check_log(file: Path) -> None:
    """Raise UserError if a log file exists that another program has written."""
    if os.path.lexists(file) and not is_own_log(file):
        raise UserError(
            f"output={escaped(str(file.parent))}: holds {file.name}, which another program has written; move it away,"
            " or give another folder"
        )


def is_own_log(target: Path) -> bool:
    """Return whether a file is a log of this program."""
    if not target.is_file():
        return False
    with target.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)  # other libraries may have written the first lines
    return not head or _LOG_LINE.search(head) is not None
