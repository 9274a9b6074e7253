"""Compressed containers: told by content, unpacked in bounded memory, with whatever may follow their end."""

import bz2
import lzma
import sys
from collections.abc import Callable
from typing import BinaryIO, Protocol

try:
    from isal import isal_zlib as zlib  # three times as fast; xopen brings it where it runs
except ImportError:
    import zlib  # type: ignore[no-redef]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from virnucpro_pl.errors import escaped

MAX_WINDOW_LOG = 28
"""256 MiB: xz -9 needs 65, zstd unpacks 128 unless asked for more; files can ask for gigabytes"""
PADDING = b"\0 \t\r\n"
"""Bytes that may follow the end of a container"""
_PACKED_BYTES = 1 << 16  # of compressed data, read at once
_MAGIC_BYTES = 16  # tell every compression
_MAGIC = {b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}


class TrailingDataError(ValueError):
    """Something else follows the end of the compressed data; the message shows it."""


def compression_of(head: bytes) -> str:
    """Tell the compression by the first bytes: ``gzip``, ``bgzip``, ``bz2``, ``xz``, ``zstd`` or ``none``."""
    if head[:4] == b"\x1f\x8b\x08\x04" and head[12:16] == b"BC\x02\0":
        return "bgzip"
    if head[1:4] == b"\x2a\x4d\x18" and head[:1] in b"PQRSTUVWXYZ[\\]^_":  # a skippable frame, as pzstd begins with
        return "zstd"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "none")


class _Decompressor(Protocol):
    """Decompressor of one member, stream or frame."""

    @property
    def eof(self) -> bool:
        """Whether the end of the member was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether no more output can come without more input."""

    @property
    def unused_data(self) -> bytes:
        """Input after the end of the member."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return up to ``max_length`` bytes of output."""


class _Gzip:
    """Decompressor of one gzip member, with the interface that bz2, lzma and zstd share."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

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
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    "gzip": _Gzip,
    "bgzip": _Gzip,
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << MAX_WINDOW_LOG),
    "zstd": lambda: zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}),
}


class Members:
    """The content of all gzip members, bz2 or xz streams, or zstd frames of a file, end to end.

    NUL bytes, blanks and line ends may follow a member, as tapes and text tools add them. Python's own readers refuse
    some of them, ignore everything else that follows, and set no limit on memory.
    """

    def __init__(self, source: BinaryIO, compression: str):
        self._source = source
        self._new_decompressor = _DECOMPRESSORS[compression]
        self._family = "gzip" if compression == "bgzip" else compression
        self._decompressor = self._new_decompressor()
        self._waiting = b""  # not yet decompressed

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end only.

        Raises:
            EOFError: the file ends within a member.
            TrailingDataError: something else follows the last member.
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
        """Go to the next member; return whether there is one."""
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
