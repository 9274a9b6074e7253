"""Read pairs: recognition of mates and their names ``NAME/1`` and ``NAME/2``."""

import re
from collections.abc import Sequence
from hashlib import blake2b
from operator import eq
from typing import Any

_MATE_SUFFIXES = ("/1", "/2")
_CASAVA = re.compile(r"\s([12]):[YN]:\d+:")
INTERLEAVED, FIRST, SECOND = "interleaved", "1", "2"
"""Kinds of files: both reads of each pair in turn, or one of two files"""


def mate_name(name: str, number: int) -> str:
    """Return the name of the first or second read of a pair.

    >>> mate_name("x", 2), mate_name("x/2", 2)
    ('x/2', 'x/2')
    """
    return name if name.endswith(_MATE_SUFFIXES) else f"{name}/{number}"


def read_number(name: str, description: str) -> int:
    """Return the number of a read in its pair, 1 or 2, by its header; 0 if unknown, -1 if contradictory.

    >>> [read_number(text.split()[0], text) for text in ("x", "x/2", "x 1:N:0:ACGT", "x/2 1:N:0:ACGT")]
    [0, 2, 1, -1]
    """
    by_name = int(name[-1]) if name.endswith(_MATE_SUFFIXES) else 0
    comment = _CASAVA.search(description)
    by_comment = int(comment[1]) if comment else 0
    return -1 if by_name and by_comment and by_name != by_comment else by_name or by_comment


_Read = tuple[str, int]
"""name without suffix, and number in the pair"""


def _are_pair(first: _Read, second: _Read) -> bool:
    return first[0] == second[0] and (first[1], second[1]) in ((0, 0), (1, 2))


class PairEvidence:
    """Evidence for pairs in the names of a FASTQ file, in constant memory."""

    def __init__(self) -> None:
        self._names = blake2b()
        self._numbers: set[int] = set()
        self._all_named = True
        self._num_records = 0
        self._num_pairs = 0
        """Number of reads that follow the first read of their pair"""
        self._last: list[_Read] = []
        """Last read"""
        self._waiting: list[_Read] = []
        """Last read, if its mate should follow, in a file that has been paired so far"""
        self._orphan: tuple[int, str] | None = None
        """Number and name of the first read without mate beside it"""

    def add(self, names: Sequence[str], descriptions: Sequence[str]) -> None:
        """Add the next records."""
        numbers = [*map(read_number, names, descriptions)]
        bases = [name[:-2] if name.endswith(_MATE_SUFFIXES) else name for name in names]
        self._names.update("\n".join([*bases, ""]).encode())
        self._numbers.update(numbers)
        self._all_named &= all(bases)
        neighbours = [base for base, _ in self._last] + bases
        if any(map(eq, neighbours, neighbours[1:])):  # rare in files without pairs, which are then fast
            reads = [*self._last, *zip(bases, numbers, strict=True)]
            self._num_pairs += sum(map(_are_pair, reads, reads[1:]))
        if self._orphan is None:
            self._find_orphan([*self._waiting, *zip(bases, numbers, strict=True)])
        self._num_records += len(bases)
        self._last = [*zip(bases[-1:], numbers[-1:], strict=True)]

    def _find_orphan(self, reads: list[_Read]) -> None:
        """Find a read without mate among the next reads and the last read."""
        first_record = self._num_records - len(self._waiting)
        self._waiting = reads[-1:] if len(reads) % 2 else []
        for place in range(0, len(reads) - 1, 2):
            if not _are_pair(reads[place], reads[place + 1]):
                self._orphan = first_record + place + 1, reads[place][0]
                return

    @property
    def is_interleaved(self) -> bool:
        """Return whether all records come in pairs of equal names."""
        return bool(self._numbers) and self._all_named and self._orphan is None and not self._waiting

    @property
    def orphan(self) -> dict[str, Any] | None:
        """Return the first read without mate in a file that consists mostly of pairs, otherwise None."""
        if self.is_interleaved or not self._all_named or 4 * self._num_pairs < max(self._num_records, 1):
            return None
        record, name = self._orphan or (self._num_records, self._waiting[0][0])
        return {"record": record, "name": name}

    def is_mate_of(self, other: "PairEvidence") -> bool:
        """Return whether both files have the same sequence of names, without contradictory read numbers."""
        numbers = self._numbers, other._numbers
        return (
            numbers in (({0}, {0}), ({1}, {2}), ({2}, {1}))
            and self._all_named
            and self._names.digest() == other._names.digest()
        )

    @property
    def says_second(self) -> bool:
        """Return whether the records are second reads by their headers."""
        return self._numbers == {2}


def assign_mates(files: Sequence[tuple[str, PairEvidence | None]]) -> list[str | None]:
    """Return the kind of each file of a run, from its checksum and, for FASTQ, its evidence.

    Two consecutive files are mates unless one is a copy of the other.
    """
    roles: list[str | None] = [INTERLEAVED if evidence and evidence.is_interleaved else None for _, evidence in files]
    for index in range(len(files) - 1):
        (checksum, first), (next_checksum, second) = files[index : index + 2]
        if roles[index] or roles[index + 1] or not first or not second or checksum == next_checksum:
            continue
        if first.is_mate_of(second):
            roles[index : index + 2] = (SECOND, FIRST) if first.says_second else (FIRST, SECOND)
    return roles


def final_names(inputs: Sequence[dict[str, Any]], first_record: int, names: Sequence[str]) -> list[str]:
    """Return the names of consecutive records, with ``/1`` and ``/2`` for mates.

    Args:
        inputs: entries of the input files with ``records`` and ``mates``.
        first_record: number of the first record in the run, from 0.
        names: names of the records in their files.
    """
    final = [*names]
    start = -first_record
    for source in inputs:
        end = start + source["records"]
        if role := source["mates"]:
            for row in range(max(start, 0), min(end, len(final))):
                final[row] = mate_name(final[row], (row - start) % 2 + 1 if role == INTERLEAVED else int(role))
        start = end
    return final
