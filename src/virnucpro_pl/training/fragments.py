"""Fragments of genomes that resemble the chunks or reads of predictions."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence.chunks import MIN_CHUNK_LENGTH, Geometry, check_chunking, cut_records
from virnucpro_pl.sequence.records import BLOCK_BYTES
from virnucpro_pl.training.read_errors import ErrorRates, with_errors

_IS_BASE = np.zeros(256, dtype=np.bool_)
_IS_BASE[np.frombuffer(b"ACGTacgt", dtype=np.uint8)] = True


class LengthRange(NamedTuple):
    """Range of fragment lengths in nt."""

    shortest: int
    longest: int

    @classmethod
    def parse(cls, text: str | int) -> "LengthRange":
        """Parse ``300`` or ``150-500``.

        Raises:
            UserError: the text is neither.
        """
        numbers = str(text).split("-")
        if not (len(numbers) in (1, 2) and all(number.strip().isdecimal() for number in numbers)):
            raise UserError(f"data.chunk_length={text}: give a number of bases, or a range: 150-500")
        shortest, longest = int(numbers[0]), int(numbers[-1])
        if shortest > longest:
            raise UserError(f"data.chunk_length={text}: the shorter length comes first")
        if shortest < MIN_CHUNK_LENGTH:
            raise UserError(f"data.chunk_length={text}: a fragment needs at least {MIN_CHUNK_LENGTH} nt, one codon")
        return cls(shortest, longest)


class Fragments(NamedTuple):
    """Consecutive fragments of one record."""

    start: NDArray[np.int64]
    """(F,) first letter in the record, counted from 0"""
    end: NDArray[np.int64]
    """(F,) one past the last letter"""
    priority: NDArray[np.uint64]
    """(F,) random numbers; a sample takes the fragments with the smallest ones"""
    error_seed: NDArray[np.uint64]
    """(F,) random seeds of the read errors"""

    def select(self, chosen: NDArray[np.bool_]) -> "Fragments":
        """Return the chosen fragments, (F,) bool."""
        return Fragments(self.start[chosen], self.end[chosen], self.priority[chosen], self.error_seed[chosen])


class Cutter:
    """Cutter of records; the fragments of a record depend on the names of file and record and on the seed only.

    Args:
        lengths: lengths of the fragments.
        geometry: geometry of fragments of one length; fragments of random lengths lie end to end.
        depth: number of times that a record is cut; after the first time, from a random start.
        seed: random seed.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(self, lengths: LengthRange, geometry: Geometry, depth: int, seed: int):
        check_chunking(lengths.longest, geometry)
        if depth < 1:
            raise UserError(f"data.depth={depth}: give how often records are cut; 1 is usual")
        self._depth = depth
        self._lengths = lengths
        self._geometry = geometry
        self._seed = seed

    def cut(self, file: str, name: str, length: int) -> Fragments:
        """Cut one record of ``length`` letters."""
        digest = hashlib.blake2b(f"{self._seed}\0{file}\0{name}".encode("utf-8", "surrogateescape"), digest_size=16)
        rng = np.random.default_rng(int.from_bytes(digest.digest(), "little"))
        shortest, longest = self._lengths
        tilings = [self._tiling(rng, length, 0 if shortest < longest else None)]
        tilings += [self._tiling(rng, length, int(rng.integers(longest))) for _ in range(self._depth - 1)]
        start, end = (np.concatenate(column) for column in zip(*tilings, strict=True))
        numbers = rng.integers(0, 2**64, (2, len(start)), dtype=np.uint64)
        return Fragments(start, end, numbers[0], numbers[1])

    def _tiling(
        self, rng: np.random.Generator, length: int, first: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return starts and ends of fragments end to end from ``first`` on; None: the geometry of ``predict``."""
        shortest, longest = self._lengths
        if first is None:
            chunks = cut_records(np.array([length], dtype=np.int64), longest, self._geometry)
            return chunks.start, chunks.end
        sizes = rng.integers(shortest, longest + 1, max(0, length - first) // shortest + 1)
        ends = first + np.cumsum(sizes)
        ends = np.minimum(ends[: int(np.searchsorted(ends, length)) + 1], length)
        starts = np.concatenate([[first], ends[:-1]]).astype(np.int64)
        whole = ends - starts >= shortest
        return starts[whole], ends[whole].astype(np.int64)


class Pieces(NamedTuple):
    """Letters of some consecutive fragments of one record."""

    first: int
    """number of the first fragment in the record"""
    letters: bytes
    """letters end to end, with read errors"""
    lengths: NDArray[np.int64]
    """(P,) number of letters of each fragment"""
    is_plain: NDArray[np.bool_]
    """(P,) true if all letters are A, C, G, T"""


def read_pieces(
    letters: bytes, fragments: Fragments, errors: ErrorRates, at_least: int = BLOCK_BYTES
) -> Iterator[Pieces]:
    """Yield the letters of the fragments of a record in blocks.

    Args:
        letters: letters of the record.
        fragments: its fragments.
        errors: rates of read errors.
        at_least: smallest number of letters of a block.
    """
    sizes = np.cumsum(fragments.end - fragments.start)
    first = 0
    while first < len(sizes):
        before = int(sizes[first - 1]) if first else 0
        after = min(int(np.searchsorted(sizes, before + at_least)) + 1, len(sizes))
        bounds = zip(fragments.start[first:after].tolist(), fragments.end[first:after].tolist(), strict=True)
        texts = [letters[start:end] for start, end in bounds]
        if errors.are_any:
            seeds = fragments.error_seed[first:after].tolist()
            texts = [with_errors(text, errors, np.random.default_rng(s)) for text, s in zip(texts, seeds, strict=True)]
        joined, lengths = b"".join(texts), np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        is_base = _IS_BASE[np.frombuffer(joined, dtype=np.uint8)]
        is_plain = np.logical_and.reduceat(is_base, np.cumsum(lengths) - lengths)
        yield Pieces(first, joined, lengths, is_plain)
        first = after
