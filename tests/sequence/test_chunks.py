"""Chunks against the published rule, written out here record by record."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence.chunks import check_chunking, cut_records

LENGTHS = range(1, 6001)


def published_chunks(length: int, size: int) -> list[tuple[int, int]]:
    """The published program's split, as measured on it: overlaps as a list, zipped with the chunks."""
    count = -(-length // size)
    surplus = count * size - length
    narrow = int(surplus / count)
    wide = surplus - narrow * (count - 1)
    overlaps = [narrow + 1] * wide + [narrow] * (count - 1 - wide) + [0]
    bounds, start = [], 0
    for _, overlap in zip(range(count), overlaps, strict=False):
        bounds.append((start, min(start + size, length)))
        start += size - overlap
    return bounds


@pytest.mark.parametrize("size", [300, 500])
def test_published_chunks_of_every_length(size: int) -> None:
    chunks = cut_records(np.array(LENGTHS), size)
    found: dict[int, list[tuple[int, int]]] = {length: [] for length in LENGTHS}
    for record, number, start, end in zip(*(column.tolist() for column in chunks), strict=True):
        found[LENGTHS[record]].append((start, end))
        assert number == len(found[LENGTHS[record]])
    assert found == {length: published_chunks(length, size) for length in LENGTHS}


def test_recorded_chunk_plan(golden) -> None:
    rows = (golden / "unit" / "chunk_plan.tsv").read_text().splitlines()[1:]
    for size, length, plan in (row.split("\t") for row in rows):
        chunks = cut_records(np.array([int(length)]), int(size))
        found = [f"{start}-{end}" for start, end in zip(chunks.start, chunks.end, strict=True)]
        assert found == plan.replace(",", " ").replace(";", " ").split()


@settings(deadline=None)
@given(st.lists(st.integers(0, 20_000), max_size=5), st.integers(3, 2000))
def test_even_chunks_have_full_length_and_cover_the_record(lengths: list[int], size: int) -> None:
    chunks = cut_records(np.array(lengths, dtype=np.int64), size, "even")
    assert (np.diff(chunks.record) >= 0).all()
    for record, length in enumerate(lengths):
        mine = chunks.record == record
        starts, ends = chunks.start[mine], chunks.end[mine]
        assert len(starts) == -(-length // size)  # the fewest that can cover it
        if length:
            assert starts[0] == 0
            assert ends[-1] == length
            assert (ends - starts == min(size, length)).all()
            assert (starts[1:] <= ends[:-1]).all()
            assert (np.diff(starts) > 0).all()


def test_published_chunks_cover_the_record() -> None:
    for length in (299, 300, 301, 599, 601, 902, 30_000):
        chunks = cut_records(np.array([length]), 300)
        assert (chunks.start[1:] <= chunks.end[:-1]).all()
        assert (chunks.start[0], chunks.end[-1]) == (0, length)


@pytest.mark.parametrize("geometry", ["published", "even"])
def test_records_among_others_are_cut_as_alone(geometry) -> None:
    lengths = np.array([901, 0, 1, 300, 301, 5000])
    together = cut_records(lengths, 300, geometry)
    for record, length in enumerate(lengths):
        alone = cut_records(np.array([length]), 300, geometry)
        mine = together.record == record
        assert together.start[mine].tolist() == alone.start.tolist()
        assert together.end[mine].tolist() == alone.end.tolist()


@pytest.mark.parametrize(
    ("size", "geometry", "message"),
    [(2, "published", "chunk_length=2"), (0, "even", "chunk_length=0"), (300, "odd", "published, even")],
)
def test_impossible_settings_are_refused(size: int, geometry: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_chunking(size, geometry)
