"""Duplicates against a dictionary."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_pl.sequence import duplicates, row_sorter, stored_array
from virnucpro_pl.sequence.duplicates import DuplicateFinder, number_repeats
from virnucpro_pl.sequence.row_sorter import RowSorter
from virnucpro_pl.sequence.stored_array import StoredArray

Row = tuple[bytes, bytes]


def repeats(rows: list) -> list[list[int]]:
    first: dict = {}
    return [[i, first[row]] for i, row in enumerate(rows) if first.setdefault(row, i) != i]


def find(folder: Path, blocks: list[list[Row]]) -> list[list[list[int]]]:
    finder = DuplicateFinder(folder)
    for block in blocks:
        finder.add([first for first, _ in block], [second for _, second in block])
    paths = folder / "whole.npy", folder / "first_part.npy"
    count = finder.save(*paths)
    found = [np.load(path) for path in paths]
    assert found[0].shape == (count, 2)
    for path in paths:
        path.unlink()
    return [one.tolist() for one in found]


def expected(rows: list[Row]) -> list[list[list[int]]]:
    return [repeats(rows), repeats([first for first, _ in rows])]


rows = st.lists(st.tuples(st.sampled_from([b"", b"a", b"b", b"ab"]), st.sampled_from([b"", b"b", b"x"])), max_size=20)


@settings(deadline=None)
@given(st.lists(rows, max_size=4), st.sampled_from([1, 3, 1000]))
def test_repeated_rows_are_found(tmp_path_factory, blocks: list[list[Row]], max_rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "RowSorter", partial(RowSorter, max_rows=max_rows))
        found = find(tmp_path_factory.mktemp("duplicates"), blocks)
    assert found == expected([row for block in blocks for row in block])


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc")), st.sampled_from([1, 3, 1000]), st.sampled_from([1, 4, 1000]))
def test_repeats_are_numbered_in_their_order(
    tmp_path_factory, names: list[str], max_rows: int, block_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("duplicates")
    finder = DuplicateFinder(folder)
    finder.add(names)
    finder.save(folder / "repeats.npy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "RowSorter", partial(RowSorter, max_rows=max_rows))
        patch.setattr(row_sorter, "LEAST_READ", 1)
        patch.setattr(stored_array, "BLOCK_ROWS", block_rows)
        number_repeats(StoredArray(folder / "repeats.npy"), folder, folder / "numbers.npy")
    counts = [names[: row + 1].count(name) for row, name in enumerate(names)]
    assert np.load(folder / "numbers.npy").tolist() == [[row, count] for row, count in enumerate(counts) if count > 1]


def test_rows_of_one_part_are_compared_by_it(tmp_path: Path) -> None:
    names = ["a", "b", "a", "c", "b", "a"]
    finder = DuplicateFinder(tmp_path)
    finder.add(names)
    assert finder.save(tmp_path / "names.npy") == 3
    assert np.load(tmp_path / "names.npy").tolist() == repeats(names)


def test_many_rows_and_no_file_left(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(duplicates, "RowSorter", partial(RowSorter, max_rows=5000))
    rows = [(b"%d" % number, b"%d" % (number % 7)) for number in np.random.default_rng(0).integers(0, 30_000, 40_000)]
    assert find(tmp_path, [rows[i : i + 900] for i in range(0, len(rows), 900)]) == expected(rows)
    assert not [*tmp_path.iterdir()]


def test_rows_whose_parts_collide_are_told_apart(tmp_path: Path) -> None:
    class Colliding(bytes):
        def __hash__(self) -> int:
            return 7

    rows = [(Colliding(b"x"), b"%d" % (i % 3)) for i in range(9)]
    assert find(tmp_path, [rows]) == expected(rows)
