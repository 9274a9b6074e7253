"""The bytes of an input: opened, watched for the checksum, decompressed by content, in bounded memory."""

import hashlib
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, TypeVar

from virnucpro_pl.errors import UserError
from virnucpro_pl.host.standard_streams import stdin_was_closed
from virnucpro_pl.sequence.containers import MAX_WINDOW_LOG, PADDING, Members, TrailingDataError

STDIN = "-"
MAX_LINE_BYTES = 64 << 20
"""Of FASTQ and SAM, whose lines are held whole: twenty times the longest nanopore read."""
_TOO_MUCH_MEMORY = ("Memory usage limit", "too much memory")  # as lzma and zstd say it
_TAIL_BYTES = 64
_Result = TypeVar("_Result")


def shown_name(path: str) -> str:
    """What messages call an input."""
    return "standard input" if path == STDIN else path


def open_input(path: str) -> AbstractContextManager[BinaryIO]:
    """Open a file, or standard input, which stays open afterwards.

    Raises:
        UserError: the file cannot be opened.
    """
    if path == STDIN and stdin_was_closed():
        raise UserError("input=-: standard input is closed; redirect a file or a pipe to it")
    try:
        return nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}; check the path and its permissions") from error


def can_be_read_again(path: str) -> bool:
    """Return whether an input is a regular file; pipes, devices and standard input give their bytes once."""
    try:
        return path != STDIN and stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def unchanged(raw: BinaryIO, path: str) -> Iterator[None]:
    """Make sure that a file does not change while it is read.

    Raises:
        UserError: its size or time of change is another at the end, whatever else went wrong.
    """
    if not can_be_read_again(path):
        yield
        return
    before = _state(raw)
    try:
        yield
    except UserError as error:
        if _state(raw) == before:
            raise
        raise _changed(path) from error
    if _state(raw) != before:
        raise _changed(path)


def _state(raw: BinaryIO) -> tuple[int, int]:
    state = os.fstat(raw.fileno())
    return state.st_size, state.st_mtime_ns  # not of the status, which a second link to the file changes


def _changed(path: str) -> UserError:
    return UserError(f"{path}: was changed while it was read; start again when the file is complete")


class Watched(io.RawIOBase):
    """Passes a binary stream through, feeds every byte to a digest, and remembers the first and the last ones."""

    def __init__(self, source: BinaryIO, digest: "hashlib._Hash"):
        self._source = source
        self._digest = digest
        self.head = b""
        while len(self.head) < _TAIL_BYTES and (more := source.read(_TAIL_BYTES - len(self.head))):
            self.head += more  # a pipe may give a few bytes at a time
        self._waiting = self.head
        self.tail = b""
        """The last bytes but for ``PADDING``"""
        self._padding = b""  # what may turn out to be none

    def readable(self) -> bool:
        """Tell that it is."""
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fill the buffer."""
        view = memoryview(buffer)
        if self._waiting:
            size = min(len(view), len(self._waiting))
            view[:size], self._waiting = self._waiting[:size], self._waiting[size:]
        else:
            size = self._source.readinto(view)  # type: ignore[attr-defined]
        self._digest.update(view[:size])
        block = bytes(view[max(0, size - 2 * _TAIL_BYTES) : size])
        if len(block.rstrip(PADDING)) < _TAIL_BYTES:
            block = bytes(view[:size])
        if content := block.rstrip(PADDING):
            self.tail = (self.tail + self._padding + content[-_TAIL_BYTES:])[-_TAIL_BYTES:]
            self._padding = b""
        self._padding = (self._padding + block[len(content) :])[-_TAIL_BYTES:]
        return size


def watch(raw: BinaryIO, digest: "hashlib._Hash", name: str) -> Watched:
    """Watch the bytes of an input.

    Raises:
        UserError: not even the first ones can be read.
    """
    try:
        return Watched(raw, digest)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"{name}: cannot be read: {reason}; check the file and its disk") from error


class Text(io.RawIOBase):
    """The decompressed bytes of an input, whose errors a user understands.

    Args:
        source: the raw bytes.
        compression: as :func:`compression_of` tells it.
        name: what messages call the input.
    """

    def __init__(self, source: BinaryIO, compression: str, name: str):
        self._name = name
        self._unread = b""
        self._line_bytes: int | None = None
        self._stream = source if compression == "none" else Members(source, compression)

    def readable(self) -> bool:
        """Tell that it is."""
        return True

    def limit_lines(self) -> None:
        """From now on, refuse a line of more than ``MAX_LINE_BYTES`` before whoever reads it must hold it whole."""
        self._line_bytes = 0

    def unread(self, block: bytes) -> None:
        """Let ``block`` be read next."""
        self._unread = block

    def read(self, size: int = 1 << 20) -> bytes:
        """Return up to ``size`` bytes, none at the end only.

        Raises:
            UserError: the compressed data is damaged or cut short, or a line is too long.
        """
        if self._unread:
            block, self._unread = self._unread[:size], self._unread[size:]
        else:
            block = self._explained(lambda: self._stream.read(size))
        if self._line_bytes is not None:
            self._measure_lines(block)
        return block

    def read_fully(self, size: int) -> bytes:
        """Return ``size`` bytes, or as many as there are."""
        blocks = []
        while size > 0 and (block := self.read(size)):
            blocks.append(block)
            size -= len(block)
        return b"".join(blocks)

    def blocks(self, size: int) -> Iterator[bytes]:
        """Yield the rest, up to ``size`` bytes at a time."""
        return iter(lambda: self.read(size), b"")

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fill the buffer."""
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def _measure_lines(self, block: bytes) -> None:
        assert self._line_bytes is not None
        first, last = block.find(b"\n"), block.rfind(b"\n")
        self._line_bytes += len(block) if first < 0 else first
        if self._line_bytes > MAX_LINE_BYTES:
            raise UserError(
                f"{self._name}: a line of more than {MAX_LINE_BYTES >> 20} MiB, which no read is; give such a sequence"
                " as FASTA, or mend the file"
            )
        if first >= 0:
            self._line_bytes = len(block) - last - 1

    def _explained(self, action: Callable[[], _Result]) -> _Result:
        try:
            return action()
        except EOFError as error:
            raise UserError(f"{self._name}: the compressed data is cut short; copy the file again") from error
        except TrailingDataError as error:
            raise UserError(
                f"{self._name}: what follows the end of the compressed data is something else ('{error}'); give"
                " joined files one by one"
            ) from error
        except Exception as error:
            if not _tells_of_data(error):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            if any(sign in reason for sign in _TOO_MUCH_MEMORY):
                raise UserError(
                    f"{self._name}: unpacking takes more than {1 << MAX_WINDOW_LOG >> 20} MiB of memory; pack it"
                    f" again, with xz -9 or zstd --long={MAX_WINDOW_LOG} at most"
                ) from error
            raise UserError(f"{self._name}: damaged or unreadable: {reason}; copy the file again") from error


def _tells_of_data(error: Exception) -> bool:
    """Whether an error is one of a decompressor: of a class of its own, or what Python's own raise; else it is ours."""
    return isinstance(error, OSError | ValueError) or type(error).__module__ != "builtins"
