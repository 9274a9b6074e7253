"""Blocks of records, from the readers to the store."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.sequence.alphabet import count_odd_letters, odd_letters

MAX_HEADER_BYTES = 1 << 20
MAX_RECORD_LETTERS = 1 << 30
"""Four times the longest human chromosome"""


class DamagedRecordError(ValueError):
    """A record is damaged.

    Args:
        reason: the damage and its position.
        advice: remedy.
    """

    def __init__(self, reason: str, advice: str):
        super().__init__(reason)
        self.advice = advice


class RecordBlock(NamedTuple):
    """Some consecutive input sequences, their letters end to end."""

    names: list[str]
    """first word of each header; empty if the header is empty"""
    descriptions: list[str]
    """whole headers after ``>`` or ``@``, without trailing blanks"""
    letters: bytes
    """sequences of the file without blanks and line ends"""
    lengths: NDArray[np.int64]
    """(N,) number of letters of each sequence"""
    odd: NDArray[np.int64] | None = None
    """(N,) number of letters of each sequence that are no nucleotides; None if there are none"""


def record_block(
    headers: list[str], letters: bytes, lengths: NDArray[np.int64], may_have_odd_letters: bool = False
) -> RecordBlock:
    """Return a block with names from the headers and, if needed, counts of letters that are no nucleotides."""
    descriptions = [*map(str.rstrip, headers)]
    names = [(description.split(None, 1) or ("",))[0] for description in descriptions]
    odd = count_odd_letters(letters, lengths) if may_have_odd_letters and odd_letters(letters) else None
    return RecordBlock(names, descriptions, letters, lengths, odd)


class BlockFiller:
    """Builder of blocks of about ``block_bytes`` from single records."""

    def __init__(self, block_bytes: int):
        self._block_bytes = block_bytes
        self._headers: list[str] = []
        self._sequences: list[str] = []
        self._size = 0

    def add(self, header: str, sequence: str) -> RecordBlock | None:
        """Add a record; return a block when it is full."""
        self._headers.append(header)
        self._sequences.append(sequence)
        self._size += len(header) + len(sequence) + 1  # a record without letters needs memory, too
        return self.rest() if self._size >= self._block_bytes else None

    def rest(self) -> RecordBlock | None:
        """Return the last block, None if it is empty.

        Raises:
            ValueError: a letter is ``>`` or not ASCII, or a header is longer than ``MAX_HEADER_BYTES``.
        """
        if not self._headers:
            return None
        if max(map(len, self._headers)) > MAX_HEADER_BYTES:
            raise ValueError(header_too_long())
        lengths = np.fromiter(map(len, self._sequences), dtype=np.int64, count=len(self._sequences))
        letters = "".join(self._sequences).encode("ascii")
        block = record_block(self._headers, letters, lengths, may_have_odd_letters=True)
        if block.odd is not None and b">" in letters:  # would start a record in viral.fasta
            names = zip(block.names, self._sequences, strict=True)
            name = next(name for name, sequence in names if ">" in sequence)
            raise ValueError(f"the sequence of '{name}' holds '>'")
        self._headers, self._sequences, self._size = [], [], 0
        return block


def header_too_long() -> str:
    """Return the message about a header that is too long."""
    return f"a header of more than {MAX_HEADER_BYTES >> 20} MiB, which is no name of a sequence"
