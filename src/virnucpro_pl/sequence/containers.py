"""Compressed containers: recognised by content, decompressed in bounded memory, with padding after their end."""

import bz2
import lzma
import sys
from collections.abc import Callable
from typing import BinaryIO, Protocol

try:
    from isal import isal_zlib as zlib  # three times as fast; xopen installs it
except ImportError:
    import zlib  # type: ignore[no-redef]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from virnucpro_pl.errors import escaped

MAX_WINDOW_LOG = 28
"""256 MiB: xz -9 needs 65 MiB, zstd 128 MiB by default; files can request gigabytes"""
PADDING = b"\0 \t\r\n"
"""Bytes that may follow the end of a container"""
_PACKED_BYTES = 1 << 16  # compressed bytes per read
_MAGIC_BYTES = 16  # enough for all formats
_MAGIC = {b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}


_FLAGS, _RESERVED = 3, 0xE0  # in a gzip header (RFC 1952, 2.3.1)


class TrailingDataError(ValueError):
    """Other data follow the end of the compressed data."""


def compression_of(head: bytes) -> str:
    """Return the compression of the first bytes: ``gzip``, ``bgzip``, ``bz2``, ``xz``, ``zstd`` or ``none``."""
    if head[:4] == b"\x1f\x8b\x08\x04" and head[12:16] == b"BC\x02\0":
        return "bgzip"
    if head[1:4] == b"\x2a\x4d\x18" and head[:1] in b"PQRSTUVWXYZ[\\]^_":  # a skippable frame, with which pzstd begins
        return "zstd"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "none")


class _Decompressor(Protocol):
    """Decompressor of one member, stream or frame."""

    @property
    def eof(self) -> bool:
        """Return whether the end of the member was reached."""

    @property
    def needs_input(self) -> bool:
        """Return whether more output needs more input."""

    @property
    def unused_data(self) -> bytes:
        """Return the input after the end of the member."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return up to ``max_length`` bytes of output."""


class _Gzip:
    """Decompressor of one gzip member, with the interface that bz2, lzma and zstd share."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self._head = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        if len(self._head) < _FLAGS + 1:
            self._head += data[: _FLAGS + 1 - len(self._head)]
            if self._head[_FLAGS:] and self._head[_FLAGS] & _RESERVED:
                raise ValueError("reserved flags are set in the header of gzip")  # isal ignores them
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    "gzip": _Gzip,
    "bgzip": _Gzip,
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << MAX_WINDOW_LOG),
    "zstd": lambda: zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}),
}


class Members:
    """Reader of all gzip members, bz2 or xz streams, or zstd frames of a file.

    NUL bytes, blanks and line ends may follow a member, as tapes and text tools add them. Python's own readers refuse
    some of them, ignore all other data that follow, and have no limit on memory.
    """

    def __init__(self, source: BinaryIO, compression: str):
        self._source = source
        self._new_decompressor = _DECOMPRESSORS[compression]
        self._family = "gzip" if compression == "bgzip" else compression
        self._decompressor = self._new_decompressor()
        self._waiting = b""  # compressed

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end only.

        Raises:
            EOFError: the file ends within a member.
            TrailingDataError: other data follow the last member.
        """
        block = b""
        while not block:
            if self._decompressor.eof and not self._begin_next():
                return b""
            data, self._waiting = self._waiting, b""
            if not data and self._decompressor.needs_input:
                data = self._source.read(_PACKED_BYTES)
            block = self._decompressor.decompress(data, size)
            if not (data or block or self._decompressor.eof):
                raise EOFError
        return block

    def _begin_next(self) -> bool:
        """Start the next member; return whether there is one."""
        rest = self._decompressor.unused_data.lstrip(PADDING)
        while len(rest) < _MAGIC_BYTES and (more := self._source.read(_PACKED_BYTES)):
            rest = (rest + more).lstrip(PADDING)
        if not rest:
            return False
        if _family_of(rest) != self._family:
            if any(magic.startswith(rest) for magic in _MAGIC):
                raise EOFError
            raise TrailingDataError(escaped(rest[:20].decode("ascii", "backslashreplace")))
        self._decompressor, self._waiting = self._new_decompressor(), rest
        return True


def _family_of(head: bytes) -> str:
    """Return the compression; bgzip is gzip in small members."""
    compression = compression_of(head)
    return "gzip" if compression == "bgzip" else compression
