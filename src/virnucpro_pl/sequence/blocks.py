"""Records on their way from a reader to the store."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.sequence.alphabet import count_odd_letters, odd_letters

MAX_HEADER_BYTES = 1 << 20
MAX_RECORD_LETTERS = 1 << 30
"""Four times the longest human chromosome."""


class DamagedRecordError(ValueError):
    """A record is not as it should be.

    Args:
        reason: what is wrong, and where.
        advice: what to do about it.
    """

    def __init__(self, reason: str, advice: str):
        super().__init__(reason)
        self.advice = advice


class RecordBlock(NamedTuple):
    """Some consecutive input sequences (reads or contigs), their letters laid end to end."""

    names: list[str]
    """First word of each header; empty when the header is."""
    descriptions: list[str]
    """Each whole header after ``>`` or ``@``, without trailing blanks."""
    letters: bytes
    """The sequences as they stand in the file, blanks and line ends removed."""
    lengths: NDArray[np.int64]
    """(N,) letters of each sequence."""
    odd: NDArray[np.int64] | None = None
    """(N,) letters of each that are no nucleotides; None if there are none."""


def record_block(
    headers: list[str], letters: bytes, lengths: NDArray[np.int64], may_have_odd_letters: bool = False
) -> RecordBlock:
    """Take the names from the headers, and count the letters that are no nucleotides where there may be some."""
    descriptions = [*map(str.rstrip, headers)]
    names = [(description.split(None, 1) or ("",))[0] for description in descriptions]
    odd = count_odd_letters(letters, lengths) if may_have_odd_letters and odd_letters(letters) else None
    return RecordBlock(names, descriptions, letters, lengths, odd)


class BlockFiller:
    """Gathers records that come one by one into blocks of about ``block_bytes``."""

    def __init__(self, block_bytes: int):
        self._block_bytes = block_bytes
        self._headers: list[str] = []
        self._sequences: list[str] = []
        self._size = 0

    def add(self, header: str, sequence: str) -> RecordBlock | None:
        """Take one record; return a block when it is full."""
        self._headers.append(header)
        self._sequences.append(sequence)
        self._size += len(header) + len(sequence) + 1  # a record without letters takes room too
        return self.rest() if self._size >= self._block_bytes else None

    def rest(self) -> RecordBlock | None:
        """Return what has been gathered, if anything.

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
        if block.odd is not None and b">" in letters:  # would begin a record in viral.fasta
            names = zip(block.names, self._sequences, strict=True)
            name = next(name for name, sequence in names if ">" in sequence)
            raise ValueError(f"the sequence of '{name}' holds '>'")
        self._headers, self._sequences, self._size = [], [], 0
        return block


def header_too_long() -> str:
    """Say that a header is."""
    return f"a header of more than {MAX_HEADER_BYTES >> 20} MiB, which is no name of a sequence"
