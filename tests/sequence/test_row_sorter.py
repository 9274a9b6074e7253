"""Sorting in runs on disk gives what a stable sort in memory gives."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_pl.sequence import row_sorter
from virnucpro_pl.sequence.row_sorter import RowSorter


def check(folder: Path, keys: np.ndarray, cuts: int, max_rows: int) -> None:
    rows = np.column_stack([keys, np.arange(len(keys))])
    sorter = RowSorter(folder, columns=2, max_rows=max_rows)
    for start in range(0, len(rows), cuts):
        sorter.add(rows[start : start + cuts])
    path = folder / "sorted.npy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_sorter, "LEAST_READ", 1)
        assert sorter.save(path) == len(sorter) == len(rows)
    assert np.array_equal(np.load(path), rows[np.argsort(keys, kind="stable")])
    path.unlink()


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=60), st.integers(1, 7), st.integers(1, 20))
def test_equal_rows_keep_their_order(tmp_path_factory, keys, cuts, max_rows) -> None:
    check(tmp_path_factory.getbasetemp(), np.array(keys, dtype=np.int64), cuts, max_rows)


@pytest.mark.parametrize("kind", ["random", "ascending", "descending", "all equal", "extremes"])
def test_many_runs_of_any_kind(tmp_path: Path, kind: str) -> None:
    generator = np.random.default_rng(0)
    ends = np.iinfo(np.int64)
    keys = {
        "random": generator.integers(ends.min, ends.max, 50_000),
        "ascending": np.arange(50_000),
        "descending": np.arange(50_000)[::-1],
        "all equal": np.zeros(50_000, dtype=np.int64),
        "extremes": generator.choice([ends.min, -1, 0, ends.max], 50_000),
    }
    check(tmp_path, keys[kind], cuts=777, max_rows=1000)
    assert not [*tmp_path.iterdir()]
