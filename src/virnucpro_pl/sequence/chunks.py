"""Chunks: the slices of records that are scored."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError

Geometry = Literal["published", "even"]
MIN_CHUNK_LENGTH = 3


class Chunks(NamedTuple):
    """Chunks of a list of records, record by record and from left to right."""

    record: NDArray[np.int64]
    """(C,) index of the record in the list"""
    number: NDArray[np.int64]
    """(C,) number in the record, from 1"""
    start: NDArray[np.int64]
    """(C,) first letter in the record, counted from 0"""
    end: NDArray[np.int64]
    """(C,) one past the last letter"""


def check_chunking(chunk_length: int, geometry: str) -> None:
    """Raise UserError if ``chunk_length`` is below one codon, or ``geometry`` is unknown."""
    if chunk_length < MIN_CHUNK_LENGTH:
        raise UserError(f"data.chunk_length={chunk_length}: a chunk needs at least {MIN_CHUNK_LENGTH} nt, one codon")
    if geometry not in get_args(Geometry):
        raise UserError(f"data.chunking={geometry}: choose one of {', '.join(get_args(Geometry))}")


def cut_records(lengths: NDArray[np.int64], chunk_length: int, geometry: Geometry = "published") -> Chunks:
    """Cut records of some lengths (nt) into chunks of at most ``chunk_length`` nt.

    A record of at most ``chunk_length`` nt is one chunk, an empty one has none, and a longer one has the fewest chunks
    that cover it.

    ``published`` distributes the surplus over the overlaps as the published tool does: it divides by the number of
    chunks instead of the number of overlaps, so the last chunk is often short. ``even`` gives chunks of full length.

    >>> published = cut_records(np.array([0, 7, 601]), 300)
    >>> [*zip(*(column.tolist() for column in published))]
    [(1, 1, 0, 7), (2, 1, 0, 300), (2, 2, 200, 500), (2, 3, 400, 601)]
    >>> even = cut_records(np.array([601]), 300, "even")
    >>> [*zip(even.start.tolist(), even.end.tolist())]
    [(0, 300), (150, 450), (301, 601)]
    """
    counts = -(-lengths // chunk_length)
    record = np.repeat(np.arange(len(lengths)), counts)
    before = np.arange(len(record)) - np.repeat(np.cumsum(counts) - counts, counts)
    count, length = counts[record], lengths[record]
    if geometry == "published":
        surplus = count * chunk_length - length
        overlap = surplus // count
        wider = surplus - overlap * (count - 1)  # number of overlaps, from the left, that are one base wider
        start = before * (chunk_length - overlap) - np.minimum(before, wider)
    else:
        start = (length - chunk_length) * before // np.maximum(count - 1, 1)
    return Chunks(record, before + 1, start, np.minimum(start + chunk_length, length))
