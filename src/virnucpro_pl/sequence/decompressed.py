"""Readers of plain or compressed tables and annotations."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virnucpro_pl.sequence.containers import compression_of
from virnucpro_pl.sequence.streams import Text, Watched


@contextmanager
def open_decompressed(path: Path) -> Iterator[io.BufferedReader]:
    """Open a plain or compressed file, whatever its name.

    Raises:
        OSError: the file cannot be opened.
        UserError: while reading: the compressed data is damaged or truncated.
    """
    with path.open("rb") as raw:
        watched = Watched(raw, hashlib.sha256())
        text = Text(io.BufferedReader(watched), compression_of(watched.head), str(path))
        yield io.BufferedReader(text, 1 << 20)
