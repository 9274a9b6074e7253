"""Files that are there complete or not at all, whatever kills the process or cuts the power."""

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".tmp"
"""How the names of files end that were being written"""


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
