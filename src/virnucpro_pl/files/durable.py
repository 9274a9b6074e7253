"""Files that are there complete or not at all, whatever kills the process or cuts the power."""

import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

UNFINISHED = ".tmp"
"""How the names of files end that were being written"""

_observer: ContextVar[Callable[[Path, Path], None] | None] = ContextVar("observer", default=None)


@contextmanager
def announced_to(observer: Callable[[Path, Path], None]) -> Iterator[None]:
    """Call an observer with each complete file and its later path before it gets its name.

    An error that the observer raises keeps the file from appearing.
    """
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def announce(unfinished: Path, path: Path) -> None:
    """Call the observer, if there is one, before a file is renamed to ``path``."""
    if observer := _observer.get():
        observer(unfinished, path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file to write to beside ``path``; flush it to the disk and give it its name at the end.

    Its permissions are those of any new file, also where a library writes another file in its place: safetensors makes
    files that only their owner can read.

    Raises:
        OSError: it cannot be written; what was at ``path`` before is still there.
    """
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{UNFINISHED}")
    try:
        unfinished.touch(exist_ok=False)
        permissions = unfinished.stat().st_mode
        yield unfinished
        if unfinished.stat().st_mode != permissions:
            unfinished.chmod(stat.S_IMODE(permissions))
        flush(unfinished)
        announce(unfinished, path)
        unfinished.replace(path)
        flush(path.parent)  # else a power cut can take the new name back
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file; its folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems cannot flush a folder, and need not
            raise
    finally:
        os.close(descriptor)
