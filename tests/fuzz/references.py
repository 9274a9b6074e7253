"""What the readers must give, written plainly: every rule is stated once, here.

Fuzzers compare the readers with these functions, and where both apply with Biopython and Python's own decompressors.
A rule that changes in the program changes here, in one place.
"""

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import Any

try:
    from isal import isal_zlib
except ImportError:  # no build for this machine: zlib alone
    isal_zlib = None

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Record = tuple[str, str]
"""Whole header without trailing blanks, and letters"""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BLANKS = b" \t"
COMMENTS = (b";", b"#")
PADDING = b"\0 \t\r\n"
"""May follow every member of a container"""
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class RefusedError(Exception):
    """The rules refuse the input."""


def records_of(text: bytes) -> list[Record]:
    """Return the records of FASTA or FASTQ text; none if there is nothing but blanks and comments.

    Raises:
        RefusedError: it is neither, or is damaged.
    """
    text = from_first_record(text)
    if not text:
        return []
    if text.startswith(b">"):
        return _fasta_records(text)
    if text.startswith(b"@"):
        return _fastq_records(text)
    raise RefusedError


def from_first_record(text: bytes) -> bytes:
    """Skip a byte order mark, and blanks, blank lines and comments before the first record."""
    text = text.removeprefix(BYTE_ORDER_MARK)
    while (text := text.lstrip(BLANKS + b"\r\n")).startswith(COMMENTS):
        ends = [place for place in (text.find(b"\n"), text.find(b"\r")) if place >= 0]
        text = text[min(ends) :] if ends else b""
    return text


def _fasta_records(text: bytes) -> list[Record]:
    """Lines end with LF, CRLF or CR; blanks within letters go, every other ASCII letter but ``>`` stays."""
    found: list[tuple[str, list[bytes]]] = []
    for line in text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        if line.startswith(b">"):
            found.append((_header(line[1:]), []))
        else:
            if b">" in line or not line.isascii():
                raise RefusedError
            found[-1][1].append(line.translate(None, BLANKS))
    return [(header, b"".join(lines).decode("ascii")) for header, lines in found]


def _fastq_records(text: bytes) -> list[Record]:
    """Four lines a record, which end with LF or CRLF; blank lines may follow the last one."""
    if not text.isascii():
        raise RefusedError
    lines = [line.removesuffix(b"\r") for line in text.removesuffix(b"\n").split(b"\n")]
    while lines and len(lines) % 4 != 0 and not lines[-1].strip(BLANKS + b"\r"):
        lines.pop()
    while len(lines) > 4 and not any(line.strip(BLANKS + b"\r") for line in lines[-4:]):
        del lines[-4:]
    if len(lines) % 4:
        raise RefusedError
    found = []
    for header, letters, plus, qualities in zip(*(lines[number::4] for number in range(4)), strict=True):
        if not header.startswith(b"@") or not plus.startswith(b"+") or len(letters) != len(qualities):
            raise RefusedError
        if plus[1:] not in (b"", header[1:]) or b">" in letters:
            raise RefusedError
        found.append((_header(header[1:].replace(b"\r", b" ")), letters.decode("ascii")))
    return found


def _header(line: bytes) -> str:
    """Return a header as text; bytes that are not UTF-8 are escaped."""
    return line.decode("utf-8", "backslashreplace").rstrip()


def name_of(header: str) -> str:
    """Return the first word, nothing where there is none."""
    return (header.split(None, 1) or [""])[0]


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
    "zstd": zstd.ZstdDecompressor,
}


def kind_of(data: bytes) -> str | None:
    """Return the compression by the first bytes, None for plain text."""
    if data[1:4] == b"\x2a\x4d\x18" and data[:1] in [bytes([first]) for first in range(0x50, 0x60)]:
        return "zstd"  # a skippable frame
    return next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)


def unpacked(data: bytes) -> bytes:
    """Return the content of all members of a container end to end, or plain text as it is.

    Padding may follow every member; nothing else but further members of the same kind may.

    Raises:
        RefusedError: the container is damaged or cut short, or something else follows it.
    """
    kind = kind_of(data)
    if kind is None:
        return data
    content = b""
    while data:
        if kind_of(data) != kind:
            raise RefusedError
        member = _DECOMPRESSORS[kind]()
        try:
            content += member.decompress(data)
        except zlib.error as error:
            # ISA-L takes distance codes that zlib refuses; with the right CRC-32 and length the content is right.
            if isal_zlib is None or "invalid distance" not in str(error):
                raise RefusedError from error
            member = isal_zlib.decompressobj(wbits=31)
            try:
                content += member.decompress(data)
            except isal_zlib.error as also:
                raise RefusedError from also
        except (OSError, ValueError, EOFError, lzma.LZMAError, zstd.ZstdError) as error:
            raise RefusedError from error
        if not member.eof:
            raise RefusedError
        data = member.unused_data.lstrip(PADDING)
    return content
