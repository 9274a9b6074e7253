"""Access to files of any name for libraries that take only UTF-8; names on Linux are bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa


def open_arrow(path: Path, mode: str = "rb") -> pa.NativeFile:
    """Open a file for pyarrow, which takes any name only as bytes and reads some names as URIs.

    Raises:
        OSError: it cannot be opened.
    """
    return pa.OSFile(os.fsencode(path), mode)


@contextmanager
def utf8_name(path: Path | str) -> Iterator[str]:
    """Yield a UTF-8 name under which a file or folder can be read within the block.

    Raises:
        OSError: its own name is not UTF-8, and it cannot be opened.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            yield f"/proc/self/fd/{descriptor}"  # only Linux allows such names
        finally:
            os.close(descriptor)
    else:
        yield str(path)
