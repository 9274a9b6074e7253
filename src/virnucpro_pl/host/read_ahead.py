"""Preparation of the next items in a thread."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")


def read_ahead(items: Iterator[_Item], depth: int) -> Iterator[_Item]:
    """Yield the items, none of them None, while a thread takes up to ``depth`` more from the iterator."""
    reader = ThreadPoolExecutor(1)
    try:
        upcoming = deque(reader.submit(next, items, None) for _ in range(depth))
        while (item := upcoming.popleft().result()) is not None:
            upcoming.append(reader.submit(next, items, None))
            yield item
    finally:
        # Not joined: standard input may be silent for ever when the program is stopped.
        reader.shutdown(wait=False, cancel_futures=True)
