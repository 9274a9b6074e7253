"""Items are prepared ahead, all of them, in order."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import PATIENCE
from virnucpro_pl.host.read_ahead import read_ahead


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
    threads_before = {*threading.enumerate()}
    taken = []
    ahead = read_ahead((taken.append(i) or i for i in range(100)), depth=3)
    next(ahead)
    ahead.close()
    assert len(taken) <= 1 + 3
    for thread in {*threading.enumerate()} - threads_before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_items_that_never_come_hold_up_nobody():
    """As when the program is stopped while standard input is silent."""
    coming = threading.Event()

    def items():
        yield 1
        coming.wait()

    ahead = read_ahead(items(), depth=2)
    next(ahead)
    closing = threading.Thread(target=ahead.close)
    closing.start()
    closing.join(PATIENCE)
    held_up = closing.is_alive()
    coming.set()
    assert not held_up
