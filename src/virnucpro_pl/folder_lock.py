"""A lock on a folder that lasts as long as the processes that work in it, however they end."""

import fcntl
import os
import time
from pathlib import Path
from typing import Self

LOCK_FILE = "lock"
"""Its name in the work folder of a run"""

_POLL_SECONDS = 0.2


class FolderLock:
    """``flock`` on a file: held alone while one process prepares the folder, and shared by all that work in it.

    Nothing has to be cleaned up after a process that was killed. File systems without locks take none.

    Args:
        file: made if it is not there.
    """

    def __init__(self, file: Path):
        file.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)

    def take_alone(self, patience: float) -> bool:
        """Return whether nobody else holds it, after waiting up to ``patience`` seconds for those who do."""
        deadline = time.monotonic() + patience
        while not self._take(fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def share(self) -> None:
        """Let others have it too, but nobody alone."""
        self._take(fcntl.LOCK_SH)

    def _take(self, kind: int) -> bool:
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # not on this file system
            return True
        return True

    def release(self) -> None:
        """Let go; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
