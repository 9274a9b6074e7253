"""Sorting more text rows than fit in memory."""

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

MAX_ROWS = 1_000_000


class SortedRows:
    """Collects tab-separated rows and gives them back in code-point order of their first column.

    UTF-8 sorts by bytes as Unicode sorts by code points. Rows beyond ``max_rows`` are sorted in runs on disk.
    """

    def __init__(self, folder: Path, max_rows: int = MAX_ROWS):
        self._folder = folder
        self._max_rows = max_rows
        self._rows: list[tuple[bytes, bytes]] = []
        self._runs: list[BinaryIO] = []

    def extend(self, rows: Iterable[str]) -> None:
        """Add rows, each without its line end."""
        for row in rows:
            name, _, rest = row.encode().partition(b"\t")
            self._rows.append((name, rest))
        if len(self._rows) >= self._max_rows:
            run = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - read again in write_to
            run.writelines(_lines(sorted(self._rows)))
            run.seek(0)
            self._runs.append(run)
            self._rows = []

    def write_to(self, stream: BinaryIO) -> None:
        """Write all rows in order; the temporary files go."""
        with ExitStack() as stack:
            runs = [_split(stack.enter_context(run)) for run in self._runs]
            stream.writelines(_lines(heapq.merge(*runs, sorted(self._rows))))


def _lines(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    return (b"%s\t%s\n" % row for row in rows)


def _split(run: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    for line in run:
        name, _, rest = line.rstrip(b"\n").partition(b"\t")
        yield name, rest
