"""A lock on a folder that lasts as long as the processes that work in it, however they end."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from virnucpro_pl.errors import UserError, escaped

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
        self._file = file
        self._descriptor = self._open()

    def _open(self) -> int:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)

    def take_alone(self, patience: float) -> bool:
        """Return whether nobody else holds it, after waiting up to ``patience`` seconds for those who do."""
        deadline = time.monotonic() + patience
        while not (self._take(fcntl.LOCK_EX) and self._is_the_file()):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def share(self) -> bool:
        """Let others have it too, but nobody alone; False if somebody has it alone."""
        return self._take(fcntl.LOCK_SH)

    def _is_the_file(self) -> bool:
        """Whether others would find this file; whoever had the lock before may have removed it, then open it anew."""
        try:
            if os.path.samestat(os.fstat(self._descriptor), self._file.stat()):
                return True
        except FileNotFoundError:
            pass
        os.close(self._descriptor)
        self._descriptor = self._open()
        return False

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


@contextmanager
def alone_in(folder: Path, name: str) -> Iterator[None]:
    """Keep other runs out of an output folder, which is made if it is not there.

    Args:
        folder: the output folder.
        name: of the lock file in it, which is removed at the end.

    Raises:
        UserError: another run is at work there, or nothing can be written there.
    """
    file = folder / name
    try:
        lock = FolderLock(file)
    except OSError as error:
        raise UserError(
            f"output={escaped(str(folder))}: cannot be written: {error.strerror}; give another folder"
        ) from error
    with lock:
        if not lock.take_alone(patience=0.0):
            raise in_use(folder)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def in_use(folder: Path) -> UserError:
    """Return the error of a run whose output folder another run has locked."""
    return UserError(f"output={escaped(str(folder))}: another run is at work there; wait for it or give another folder")
