"""External sorting of text rows."""

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

MAX_ROWS = 1 << 15
MAX_RUNS = 64
_Row = tuple[bytes, bytes]


class SortedRows:
    """Sorter of tab-separated rows by the code points of their first column.

    UTF-8 sorts by bytes as Unicode sorts by code points. Every ``max_rows`` rows are sorted into a run on disk;
    ``max_runs`` runs of one level are merged into one of the next, so that few files are open.
    """

    def __init__(self, folder: Path, max_rows: int = MAX_ROWS, max_runs: int = MAX_RUNS):
        self._folder = folder
        self._max_rows = max_rows
        self._max_runs = max_runs
        self._rows: list[_Row] = []
        self._levels: list[list[BinaryIO]] = []

    def extend(self, rows: Iterable[str]) -> None:
        """Add rows, each without its line end."""
        for row in rows:
            name, _, rest = row.encode().partition(b"\t")
            self._rows.append((name, rest))
            if len(self._rows) >= self._max_rows:
                self._rows.sort()
                self._add_run(self._rows, level=0)
                self._rows = []

    def write_to(self, stream: BinaryIO) -> None:
        """Write all rows in order, and remove the temporary files."""
        runs = [run for level in self._levels for run in level]
        self._levels = []
        stream.writelines(_lines(_merged(runs, sorted(self._rows))))

    def _add_run(self, rows: Iterable[_Row], level: int) -> None:
        run = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - read again in _merged
        run.writelines(_lines(rows))
        run.seek(0)
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(run)
        if len(self._levels[level]) == self._max_runs:
            runs, self._levels[level] = self._levels[level], []
            self._add_run(_merged(runs), level + 1)


def _merged(runs: list[BinaryIO], *more: Iterable[_Row]) -> Iterator[_Row]:
    with ExitStack() as stack:
        yield from heapq.merge(*(_split(stack.enter_context(run)) for run in runs), *more)


def _lines(rows: Iterable[_Row]) -> Iterator[bytes]:
    return (b"%s\t%s\n" % row for row in rows)


def _split(run: BinaryIO) -> Iterator[_Row]:
    for line in run:
        name, _, rest = line.rstrip(b"\n").partition(b"\t")
        yield name, rest
