"""Sorting rows through files gives what sorting in memory gives."""

import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from virnucpro_pl.results.sorted_rows import SortedRows

# Whatever a FASTA header can hold; a name holds no white space, and a lone surrogate is no text.
NAME = st.text(st.characters(exclude_categories=("Cs", "Z"), exclude_characters="\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85"))
ROWS = st.lists(st.tuples(NAME, st.integers(0, 99)), unique_by=lambda row: row[0], max_size=30)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def sorted_by_us(folder, batches: list[list[str]], max_rows: int, max_runs: int = 64) -> list[str]:
    rows = SortedRows(folder, max_rows, max_runs)
    for batch in batches:
        rows.extend(batch)
    stream = io.BytesIO()
    rows.write_to(stream)
    return stream.getvalue().decode().split("\n")[:-1]


@given(rows=ROWS, max_rows=st.integers(1, 40), batch_size=st.integers(1, 7), max_runs=st.integers(2, 4))
@example(
    rows=[("\U0001f9ec", 1), ("\uffee", 2), ("é", 3), ("z", 4), ("Z", 5), ("", 6)],
    max_rows=2,
    batch_size=1,
    max_runs=64,
)
@example(
    rows=[("a", 1), ("a!", 2), ("a\x01", 3), ("a_chunk_10", 4), ("a_chunk_1", 5)], max_rows=2, batch_size=2, max_runs=2
)
def test_rows_are_in_code_point_order_of_their_names(tmp_path_factory, rows, max_rows, batch_size, max_runs):
    lines = [f"{name}\tTrue\t{number}" for name, number in rows]
    batches = [lines[start : start + batch_size] for start in range(0, len(lines), batch_size)]

    found = sorted_by_us(tmp_path_factory.getbasetemp(), batches, max_rows, max_runs)

    assert found == [f"{name}\tTrue\t{number}" for name, number in sorted(rows)]


@pytest.mark.parametrize("max_rows", [1, 2, 3, 100])
def test_rows_of_equal_name_are_all_kept(tmp_path, max_rows):
    rows = ["same\t1", "other\t1", "same\t1", "same\t0", "same\t1"]

    assert sorted_by_us(tmp_path, [[row] for row in rows], max_rows) == [
        "other\t1",
        "same\t0",
        "same\t1",
        "same\t1",
        "same\t1",
    ]


def test_no_rows(tmp_path):
    assert sorted_by_us(tmp_path, [], 1) == []
    assert sorted_by_us(tmp_path, [[], []], 1) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc is not here: run on Linux")
def test_rows_beyond_the_limit_go_to_few_files_and_leave_nothing_there(tmp_path):
    already_open = open_files()
    rows = SortedRows(tmp_path, max_rows=10, max_runs=4)
    for number in range(995):
        rows.extend([f"{number * 7 % 995:03d}\tx"])
        assert len(rows._rows) < 10
        assert open_files() - already_open <= 4 + 4 * 3, "three levels of at most four, and a merge"
    stream = io.BytesIO()
    rows.write_to(stream)

    assert stream.getvalue() == b"".join(b"%03d\tx\n" % number for number in range(995))
    assert list(tmp_path.iterdir()) == []
    assert open_files() == already_open


def test_text_with_a_line_separator_of_unicode_stays_one_row(tmp_path):
    rows = ["b\u2028c\tx", "b\u2029\tx", "a\x85\tx"]

    assert sorted_by_us(tmp_path, [rows], 1) == sorted(rows)
