"""Items are prepared ahead, all of them, in order."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_pl.read_ahead import read_ahead


@given(st.lists(st.integers()), st.integers(1, 5))
def test_all_items_come_in_order(items, depth):
    assert list(read_ahead(iter(items), depth)) == items


def test_an_error_reaches_whoever_asks_for_the_item():
    def items():
        yield 1
        raise OSError("disk gone")

    ahead = read_ahead(items(), depth=2)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="disk gone"):
        next(ahead)


def test_no_more_than_the_depth_is_taken_ahead_and_the_thread_ends():
    threads_before = threading.active_count()
    taken = []
    ahead = read_ahead((taken.append(i) or i for i in range(100)), depth=3)
    next(ahead)
    ahead.close()
    assert len(taken) <= 1 + 3
    assert threading.active_count() == threads_before
