"""Sequential reading of memory-mapped weight files; page faults alone would wait for the disk each time."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_BLOCK = 1 << 24
_ENDINGS = {".pt", ".pth", ".bin", ".safetensors"}


@contextmanager
def reading_ahead(path: Path) -> Iterator[None]:
    """Read a file, or the weight files of a folder, into the page cache during the block."""
    stopped = threading.Event()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    thread = threading.Thread(target=_read, args=([file for file in files if file.suffix in _ENDINGS], stopped))
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _read(files: Iterable[Path], stopped: threading.Event) -> None:
    buffer = bytearray(_BLOCK)
    for file in files:
        with suppress(OSError), file.open("rb", buffering=0) as stream:  # the reader of the file reports it
            while not stopped.is_set() and stream.readinto(buffer):
                pass
