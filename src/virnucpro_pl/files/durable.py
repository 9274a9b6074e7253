"""Atomic and durable writes: after a crash or power cut a file is complete or absent."""

import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

UNFINISHED = ".tmp"
"""Suffix of files that are being written"""

_observer: ContextVar[Callable[[Path, Path], None] | None] = ContextVar("observer", default=None)


@contextmanager
def announced_to(observer: Callable[[Path, Path], None]) -> Iterator[None]:
    """Call an observer with each complete file and its final path before the file is renamed.

    If the observer raises an error, the file does not appear.
    """
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def announce(unfinished: Path, path: Path) -> None:
    """Call the observer, if any, before a file is renamed to ``path``."""
    if observer := _observer.get():
        observer(unfinished, path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file beside ``path``; at the end flush it to the disk and rename it to ``path``.

    The file gets the permissions of any new file, even if a library replaces it by one that only its owner can read,
    as safetensors does.

    Raises:
        OSError: it cannot be written; an earlier file at ``path`` is unchanged.
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
        flush(path.parent)  # otherwise a power cut can undo the renaming
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file and make its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Write a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems cannot flush a folder, and need not
            raise
    finally:
        os.close(descriptor)
