"""The log file of a run, whose own troubles end no run."""

import logging
import sys
from contextlib import suppress
from pathlib import Path

from virnucpro_pl.errors import ESCAPE


class LogFile(logging.FileHandler):
    """A file handler that falls silent when its disk is full or may not be written; the terminal still tells all.

    Args:
        filename: of the log, which is UTF-8 whatever the locale.
        delay: open it for the first record only.
    """

    _silent = False

    def __init__(self, filename: str | Path, delay: bool = False):
        super().__init__(filename, encoding="utf-8", errors=ESCAPE, delay=delay)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, if that can be."""
        if self._silent:
            return
        try:
            super().emit(record)
        except OSError:  # when opening the file
            self._give_up()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Give up on a file that cannot be written; a mistake in a log call is still told."""
        if isinstance(sys.exc_info()[1], OSError):
            self._give_up()
        else:
            super().handleError(record)

    def _give_up(self) -> None:
        self._silent = True
        with suppress(OSError):  # what it still holds cannot be written either
            self.close()
