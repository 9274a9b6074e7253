"""Duplicates against a dictionary."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_pl.sequence import duplicates
from virnucpro_pl.sequence.duplicates import DuplicateFinder

Row = tuple[bytes, bytes]


def repeats(rows: list[Row]) -> list[list[int]]:
    first: dict[Row, int] = {}
    return [[i, first[row]] for i, row in enumerate(rows) if first.setdefault(row, i) != i]


def find(folder: Path, blocks: list[list[Row]]) -> np.ndarray:
    finder = DuplicateFinder(folder, "rows")
    for block in blocks:
        finder.add([first for first, _ in block], [second for _, second in block])
    return finder.find()


rows = st.lists(st.tuples(st.sampled_from([b"", b"a", b"b", b"ab"]), st.sampled_from([b"", b"b", b"x"])), max_size=20)


@settings(deadline=None)
@given(st.lists(rows, max_size=4), st.sampled_from([1, 3, 1000]))
def test_repeated_rows_are_found(tmp_path_factory, blocks: list[list[Row]], spill_rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_SPILL_ROWS", spill_rows)
        found = find(tmp_path_factory.mktemp("duplicates"), blocks)
    assert found.tolist() == repeats([row for block in blocks for row in block])
    assert found.shape == (len(found), 2)


def test_many_rows_and_no_file_left(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(duplicates, "_SPILL_ROWS", 5000)
    rows = [(b"%d" % number, b"%d" % (number % 7)) for number in np.random.default_rng(0).integers(0, 30_000, 40_000)]
    assert find(tmp_path, [rows[i : i + 900] for i in range(0, len(rows), 900)]).tolist() == repeats(rows)
    assert not [*tmp_path.iterdir()]


def test_rows_whose_first_parts_collide_are_told_apart(tmp_path: Path) -> None:
    class Colliding(bytes):
        def __hash__(self) -> int:
            return 7

    rows = [(Colliding(b"%d" % (i % 3)), b"%d" % (i % 3)) for i in range(9)]
    assert find(tmp_path, [rows]).tolist() == repeats(rows)
