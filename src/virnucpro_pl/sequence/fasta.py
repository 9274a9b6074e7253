"""Splitting FASTA text into headers and letters, block by block, without a Python object per line."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.sequence.blocks import MAX_HEADER_BYTES, MAX_RECORD_LETTERS, header_too_long


class Part(NamedTuple):
    """Headers of a piece of FASTA and the letters below them, line ends removed."""

    headers: list[str]
    """(N,) without ``>``."""
    letters: bytes
    """What the lines below the headers hold, end to end."""
    lengths: NDArray[np.int64]
    """(N,) letters of each record; (1 + N,) where a part may begin within a record: first those above all headers."""


def whole_records(blocks: Iterator[bytes]) -> Iterator[Part]:
    r"""Split the blocks of a FASTA file, cut anywhere, into records; the first block starts with ``>``.

    Line ends are LF, CRLF or CR. Headers come as they are, of UTF-8 or, byte by byte, escaped.

    Raises:
        ValueError: a header or a record is longer than any there is.

    >>> [*whole_records(iter([b">a\nAC", b"GT\n>b\nT", b"\n"]))]
    [Part(headers=['a'], letters=b'ACGT', lengths=array([4])), Part(headers=['b'], letters=b'T', lengths=array([1]))]
    """
    last_header: list[str] = []
    last_letters: list[bytes] = []  # in pieces: a record may be hundreds of megabytes
    last_length = 0
    for headers, letters, lengths in _parts(blocks):
        lengths[0] += last_length
        if headers:
            tail = len(letters) - int(lengths[-1])
            last_letters.append(letters[:tail])
            if whole := last_header + headers[:-1]:
                yield Part(whole, _drained(last_letters), lengths[-1 - len(whole) : -1])
            last_header, letters = headers[-1:], letters[tail:]
        last_letters.append(letters)
        last_length = int(lengths[-1])
        if last_length > MAX_RECORD_LETTERS:
            raise ValueError(f"a record of more than {MAX_RECORD_LETTERS:,} letters, which no sequence has")
    if last_header:
        yield Part(last_header, _drained(last_letters), np.array([last_length], dtype=np.int64))


def _drained(pieces: list[bytes]) -> bytes:
    joined = b"".join(pieces)
    pieces.clear()
    return joined


def _parts(blocks: Iterator[bytes]) -> Iterator[Part]:
    """Split block by block, and never within a header."""
    pieces: list[bytes] = []  # of a line that goes on and may be a header
    header_bytes = 0  # of them, if it is one
    goes_on = False  # whether a line of letters goes on
    for text in map(_unix_lines, blocks):
        pieces.append(text)
        if pieces[0].startswith(b">") and not goes_on:
            ends_at = text.find(b"\n")
            header_bytes += len(text) if ends_at < 0 else ends_at
            if header_bytes > MAX_HEADER_BYTES:
                raise ValueError(header_too_long())
            if ends_at < 0:
                continue
        header_bytes = 0
        text = _drained(pieces)
        last_line = text.rfind(b"\n") + 1
        if last_line and text.startswith(b">", last_line):
            pieces.append(text[last_line:])
            header_bytes = len(pieces[0])
            text = text[:last_line]
        yield _split(text, goes_on)
        goes_on = not text.endswith(b"\n")
    if pieces:
        yield _split(_drained(pieces), goes_on)


def _split(text: bytes, goes_on: bool) -> Part:
    """Split some lines; ``goes_on``: the first of them is the rest of a line of letters."""
    if b">" not in text:  # within a long record
        letters = text.replace(b"\n", b"")
        return Part([], letters, np.array([len(letters)], dtype=np.int64))
    array = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero(array == ord("\n"))
    num_whole_lines = len(ends)
    if not text.endswith(b"\n"):
        ends = np.append(ends, len(text))
    starts = np.append(0, ends[:-1] + 1)
    is_header = array[starts] == ord(">")
    is_header[0] &= not goes_on
    lengths = np.add.reduceat(np.where(is_header, 0, ends - starts), np.append(0, np.flatnonzero(is_header)))
    in_body = np.repeat(~is_header, ends - starts + 1)[: len(text)]
    headers = "\n" + array[~in_body].tobytes().decode("utf-8", "backslashreplace")
    in_body[ends[:num_whole_lines]] = False
    return Part(headers.removesuffix("\n").split("\n>")[1:], array[in_body].tobytes(), lengths)


def _unix_lines(block: bytes) -> bytes:
    """Make every line end (LF, CRLF, CR) LF; a CRLF cut by the border of a block leaves an empty line."""
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block
