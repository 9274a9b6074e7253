"""The bytes of an input: opened, watched for the checksum, decompressed by content, in bounded memory."""

import hashlib
import io
import lzma
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, TypeVar

from xopen import xopen

from virnucpro_pl.errors import UserError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STDIN = "-"
MAX_LINE_BYTES = 64 << 20
"""Of FASTQ and SAM, whose lines are held whole: twenty times the longest nanopore read."""
_MAX_WINDOW_LOG = 28  # 256 MiB: xz -9 needs 65, zstd unpacks 128 unless asked for more; files can ask for gigabytes
_TOO_MUCH_MEMORY = ("Memory usage limit", "too much memory")  # as lzma and zstd say it
_TAIL_BYTES = 64
_MAGIC = {b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}
_XOPEN_NAMES = {"bz2": "bz2", "gzip": "gz", "bgzip": "gz"}
_Result = TypeVar("_Result")


def shown_name(path: str) -> str:
    """What messages call an input."""
    return "standard input" if path == STDIN else path


def open_input(path: str) -> AbstractContextManager[BinaryIO]:
    """Open a file, or standard input, which stays open afterwards.

    Raises:
        UserError: the file cannot be opened.
    """
    try:
        return nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}; check the path and its permissions") from error


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
        self.tail = (self.tail + bytes(view[max(0, size - _TAIL_BYTES) : size]))[-_TAIL_BYTES:]
        return size


def compression_of(head: bytes) -> str:
    """Tell the compression by the first bytes: ``gzip``, ``bgzip``, ``bz2``, ``xz``, ``zstd`` or ``none``."""
    if head[:4] == b"\x1f\x8b\x08\x04" and head[12:16] == b"BC\x02\0":
        return "bgzip"
    if head[1:4] == b"\x2a\x4d\x18" and head[:1] in b"PQRSTUVWXYZ[\\]^_":  # a skippable frame, as pzstd begins with
        return "zstd"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "none")


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
        self._stream = self._explained(lambda: _decompressed(source, compression))

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
        except Exception as error:
            if not _tells_of_data(error):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            if any(sign in reason for sign in _TOO_MUCH_MEMORY):
                raise UserError(
                    f"{self._name}: unpacking takes more than {1 << _MAX_WINDOW_LOG >> 20} MiB of memory; pack it"
                    f" again, with xz -9 or zstd --long={_MAX_WINDOW_LOG} at most"
                ) from error
            raise UserError(f"{self._name}: damaged or unreadable: {reason}; copy the file again") from error


def _tells_of_data(error: Exception) -> bool:
    """Whether an error is one of a decompressor: of a class of its own, or what Python's own raise; else it is ours."""
    return isinstance(error, OSError | ValueError) or type(error).__module__ != "builtins"


def _decompressed(source: BinaryIO, compression: str) -> BinaryIO | zstd.ZstdFile:
    if compression == "none":
        return source
    if compression == "xz":
        return io.BufferedReader(_Xz(source))
    if compression == "zstd":
        return zstd.open(source, options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})
    return xopen(source, "rb", threads=0, format=_XOPEN_NAMES[compression])


class _Xz(io.RawIOBase):
    """Decompresses xz within a memory limit, which Python's own reader of files does not have."""

    def __init__(self, source: BinaryIO):
        self._source = source
        self._decompressor = self._new_decompressor()
        self._waiting = b""  # not yet decompressed

    @staticmethod
    def _new_decompressor() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << _MAX_WINDOW_LOG)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        block = b""
        while not block:
            if self._decompressor.eof:
                self._waiting = self._decompressor.unused_data.lstrip(b"\0")  # streams may be padded
                while not self._waiting and (more := self._source.read(1 << 16)):
                    self._waiting = more.lstrip(b"\0")
                if not self._waiting:
                    return 0
                self._decompressor = self._new_decompressor()
            elif self._decompressor.needs_input:
                self._waiting = self._waiting or self._source.read(1 << 16)
                if not self._waiting:
                    raise EOFError
            block = self._decompressor.decompress(self._waiting, len(buffer))
            self._waiting = b""
        buffer[: len(block)] = block
        return len(block)
