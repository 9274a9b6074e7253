"""Input streams: opened, hashed and decompressed by content in bounded memory."""

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
"""Longest line of FASTQ and SAM, which is held in memory: twenty times the longest nanopore read"""
_TOO_MUCH_MEMORY = ("Memory usage limit", "too much memory")  # in the messages of lzma and zstd
_TAIL_BYTES = 64
_Result = TypeVar("_Result")


def shown_name(path: str) -> str:
    """Return the name of an input in messages."""
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
    """Return whether an input is a regular file; pipes, devices and standard input can be read only once."""
    try:
        return path != STDIN and stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def unchanged(raw: BinaryIO, path: str) -> Iterator[None]:
    """Raise UserError if the size or the time of change of a file differs at the end of the block."""
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
    return state.st_size, state.st_mtime_ns  # not the time of the status, which another link to the file changes


def _changed(path: str) -> UserError:
    return UserError(f"{path}: was changed while it was read; start again when the file is complete")


class Watched(io.RawIOBase):
    """Binary stream that is hashed while it is read, and stores its first and last bytes."""

    def __init__(self, source: BinaryIO, digest: "hashlib._Hash"):
        self._source = source
        self._digest = digest
        self.head = b""
        while len(self.head) < _TAIL_BYTES and (more := source.read(_TAIL_BYTES - len(self.head))):
            self.head += more  # a pipe may return few bytes at a time
        self._waiting = self.head
        self.tail = b""
        """Last bytes without ``PADDING``"""
        self._padding = b""  # may be followed by data

    def readable(self) -> bool:
        """Return True."""
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
    """Return the hashed stream of an input.

    Raises:
        UserError: the first bytes cannot be read.
    """
    try:
        return Watched(raw, digest)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"{name}: cannot be read: {reason}; check the file and its disk") from error


class Text(io.RawIOBase):
    """Decompressed bytes of an input; errors are raised as UserError.

    Args:
        source: raw bytes.
        compression: compression of :func:`compression_of`.
        name: name of the input in messages.
    """

    def __init__(self, source: BinaryIO, compression: str, name: str):
        self._name = name
        self._unread = b""
        self._line_bytes: int | None = None
        self._stream = source if compression == "none" else Members(source, compression)

    def readable(self) -> bool:
        """Return True."""
        return True

    def limit_lines(self) -> None:
        """Refuse lines of more than ``MAX_LINE_BYTES`` from now on."""
        self._line_bytes = 0

    def unread(self, block: bytes) -> None:
        """Return ``block`` to the stream, to be read next."""
        self._unread = block

    def read(self, size: int = 1 << 20) -> bytes:
        """Return up to ``size`` bytes, none at the end only.

        Raises:
            UserError: the compressed data is damaged or truncated, or a line is too long.
        """
        if self._unread:
            block, self._unread = self._unread[:size], self._unread[size:]
        else:
            block = self._explained(lambda: self._stream.read(size))
        if self._line_bytes is not None:
            self._measure_lines(block)
        return block

    def read_fully(self, size: int) -> bytes:
        """Return ``size`` bytes, or fewer at the end."""
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
                f"{self._name}: a line of more than {MAX_LINE_BYTES >> 20} MiB, longer than any read; give such a"
                " sequence as FASTA, or fix the file"
            )
        if first >= 0:
            self._line_bytes = len(block) - last - 1

    def _explained(self, action: Callable[[], _Result]) -> _Result:
        try:
            return action()
        except EOFError as error:
            raise UserError(f"{self._name}: the compressed data is truncated; copy the file again") from error
        except TrailingDataError as error:
            raise UserError(
                f"{self._name}: other data follow the end of the compressed data ('{error}'); give joined files"
                " one by one"
            ) from error
        except Exception as error:
            if not _is_about_data(error):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            if any(sign in reason for sign in _TOO_MUCH_MEMORY):
                raise UserError(
                    f"{self._name}: decompression needs more than {1 << MAX_WINDOW_LOG >> 20} MiB of memory; compress"
                    f" it again, with at most xz -9 or zstd --long={MAX_WINDOW_LOG}"
                ) from error
            raise UserError(f"{self._name}: damaged or unreadable: {reason}; copy the file again") from error


def _is_about_data(error: Exception) -> bool:
    """Return whether an error comes from a decompressor, not from this program."""
    return isinstance(error, OSError | ValueError) or type(error).__module__ != "builtins"
