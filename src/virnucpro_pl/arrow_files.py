"""Files for Arrow under any name: given as text, Arrow takes only names that are valid UTF-8."""

import os
from pathlib import Path

import pyarrow as pa


def to_read(path: Path) -> pa.OSFile:
    """Open a file for reading."""
    return pa.OSFile(os.fsencode(path))


def to_write(path: Path) -> pa.OSFile:
    """Create or replace a file; whoever writes to it closes it."""
    return pa.OSFile(os.fsencode(path), "w")


def to_map(path: Path) -> pa.MemoryMappedFile:
    """Map a file into memory."""
    return pa.memory_map(os.fsencode(path))
