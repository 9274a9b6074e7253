"""Preparing the next items while the current one is used."""

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import TypeVar

_Item = TypeVar("_Item")
_PATIENCE = 1.0  # seconds


def read_ahead(items: Iterator[_Item], depth: int) -> Iterator[_Item]:
    """Yield the items, none of them None, while a thread takes up to ``depth`` more from the iterator.

    Whoever stops early waits for the item in preparation, but not for long: it may come from a pipe nobody writes to.
    """
    ready: SimpleQueue[tuple[_Item | None, BaseException | None]] = SimpleQueue()
    room = Semaphore(depth)
    wanted = True

    def prepare() -> None:
        try:
            item: _Item | None
            while room.acquire() and wanted:
                item = next(items, None)
                ready.put((item, None))
                if item is None:
                    return
        except BaseException as error:  # noqa: BLE001  # raised again where the item is asked for
            ready.put((None, error))

    thread = Thread(target=prepare, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            room.release()
            yield item
    finally:
        wanted = False
        room.release()
        thread.join(_PATIENCE)
