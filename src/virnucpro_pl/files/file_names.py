"""Files of any name for libraries that take UTF-8 only: names on Linux are bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa


def open_arrow(path: Path, mode: str = "rb") -> pa.NativeFile:
    """Open a file for pyarrow, which takes names of bytes here only, and reads some texts as addresses.

    Raises:
        OSError: it cannot be opened.
    """
    return pa.OSFile(os.fsencode(path), mode)


@contextmanager
def utf8_name(path: Path | str) -> Iterator[str]:
    """Yield a name in UTF-8 under which a file or folder can be read within the block.

    Raises:
        OSError: its own name is not UTF-8, and it cannot be opened.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            yield f"/proc/self/fd/{descriptor}"  # of Linux, as such names are
        finally:
            os.close(descriptor)
    else:
        yield str(path)
