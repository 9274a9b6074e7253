"""Locks on folders, which end with the processes that hold them."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from virnucpro_pl.errors import UserError, escaped

LOCK_FILE = "lock"
"""Name of the lock file in the work folder of a run"""

_POLL_SECONDS = 0.2


class FolderLock:
    """Lock on a file with ``flock``, exclusive while a process prepares a folder and shared while many work in it.

    A killed process releases it. On file systems without locks every attempt succeeds.

    Args:
        file: the lock file, made if it is missing.
    """

    def __init__(self, file: Path):
        self._file = file
        self._descriptor = self._open()

    def _open(self) -> int:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)

    def take_alone(self, patience: float) -> bool:
        """Take the exclusive lock, waiting up to ``patience`` seconds; return whether it was taken."""
        deadline = time.monotonic() + patience
        while not (self._take(fcntl.LOCK_EX) and self._is_current()):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def share(self) -> bool:
        """Take the shared lock, in exchange for an exclusive one; return False if another process holds that."""
        return self._take(fcntl.LOCK_SH)

    def _is_current(self) -> bool:
        """Return whether the open file is still the lock file; open the new one if the last holder removed it."""
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
        except OSError:  # the file system has no locks
            return True
        return True

    def release(self) -> None:
        """Release the lock; further calls do nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextmanager
def alone_in(folder: Path, name: str) -> Iterator[None]:
    """Lock an output folder, which is made if it is missing, against other runs.

    ``name`` is the lock file in it, which is removed at the end.

    Raises:
        UserError: another run has locked the folder, or it cannot be written.
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
    """Return the error for an output folder that another run has locked."""
    return UserError(f"output={escaped(str(folder))}: another run is at work there; wait for it or give another folder")
