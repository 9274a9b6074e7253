"""Splitting FASTA text into headers and letters, block by block, without a Python object per line."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.sequence.alphabet import OddLetter, find_odd_letter, odd_letters
from virnucpro_pl.sequence.blocks import MAX_HEADER_BYTES, MAX_RECORD_LETTERS, DamagedRecordError, header_too_long


class Part(NamedTuple):
    """Headers of a piece of FASTA and the letters below them, line ends removed."""

    headers: list[str]
    """(N,) without ``>``."""
    letters: bytes
    """What the lines below the headers hold, end to end."""
    lengths: NDArray[np.int64]
    """(N,) letters of each record."""
    odd: OddLetter | None
    """The first letter of the file that is no nucleotide, from the part on that holds it."""


class _Piece(NamedTuple):
    """What one block holds; the letters above its first header belong to the record before it."""

    headers: list[str]
    letters: bytes
    lengths: NDArray[np.int64]
    """(1 + N,) letters above all headers, and of each record."""
    num_lines: int
    """Line ends."""
    odd: tuple[int, int] | None
    """Position among the letters and number of the line of the first that is no nucleotide, or of ``>``."""


def whole_records(blocks: Iterator[bytes], first_line: int = 1) -> Iterator[Part]:
    r"""Split the blocks of a FASTA file, cut anywhere, into records; the first block starts with ``>``.

    Line ends are LF, CRLF or CR. Headers come as they are, of UTF-8 or, byte by byte, escaped.

    Args:
        blocks: the text.
        first_line: number of the line that it starts with.

    Raises:
        DamagedRecordError: ``>`` is within a line of letters.
        ValueError: a header or a record is longer than any there is.

    >>> [(part.headers, part.letters) for part in whole_records(iter([b">a\nAC", b"GT\n>b\nT", b"\n"]))]
    [(['a'], b'ACGT'), (['b'], b'T')]
    """
    last_header: list[str] = []
    last_letters: list[bytes] = []  # in pieces: a record may be hundreds of megabytes
    last_length = 0
    num_records = 0  # that are whole
    odd: OddLetter | None = None
    for headers, letters, lengths, _, odd_place in _pieces(blocks, first_line):
        if odd_place:
            names = [*last_header, *headers]
            found = _place(odd_place, num_records, names, letters, lengths[len(lengths) - len(names) :])
            odd = odd or found
        lengths[0] += last_length
        if headers:
            tail = len(letters) - int(lengths[-1])
            last_letters.append(letters[:tail])
            if whole := last_header + headers[:-1]:
                num_records += len(whole)
                yield Part(whole, _drained(last_letters), lengths[-1 - len(whole) : -1], odd)
            last_header, letters = headers[-1:], letters[tail:]
        last_letters.append(letters)
        last_length = int(lengths[-1])
        if last_length > MAX_RECORD_LETTERS:
            raise ValueError(f"a record of more than {MAX_RECORD_LETTERS:,} letters, which no sequence has")
    if last_header:
        yield Part(last_header, _drained(last_letters), np.array([last_length], dtype=np.int64), odd)


def _drained(pieces: list[bytes]) -> bytes:
    joined = b"".join(pieces)
    pieces.clear()
    return joined


def _place(
    odd: tuple[int, int], num_records: int, headers: list[str], letters: bytes, lengths: NDArray[np.int64]
) -> OddLetter:
    """Name the record of a letter.

    Args:
        odd: position among the letters, and line.
        num_records: that came before.
        headers: of the records.
        letters: of the piece.
        lengths: (N,) letters of each of them in this piece.
    """
    position, line = odd
    index = int(np.searchsorted(np.cumsum(lengths), position, side="right"))
    name = (headers[index].split(None, 1) or [""])[0]
    if letters[position] == ord(">"):
        raise DamagedRecordError(
            f"line {line:,}: '>' within the sequence of record {num_records + index + 1:,} ('{name}'); probably two"
            " files were joined without a line end between them, or the line is no sequence",
            "correct it",
        )
    return OddLetter(num_records + index + 1, name, line)


def _pieces(blocks: Iterator[bytes], line: int) -> Iterator[_Piece]:
    """Split block by block, and never within a header."""
    pieces: list[bytes] = []  # of a line that goes on and may be a header
    header_bytes = 0  # of them, if it is one
    goes_on = False  # whether a line of letters goes on
    for text in _unix_lines(blocks):
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
        yield (piece := _split(text, goes_on, line))
        line += piece.num_lines
        goes_on = not text.endswith(b"\n")
    if pieces:
        yield _split(_drained(pieces), goes_on, line)


def _split(text: bytes, goes_on: bool, line: int) -> _Piece:
    """Split some lines, of which the first has this number; ``goes_on``: it is the rest of a line of letters."""
    if b">" not in text:  # within a long record
        letters = text.replace(b"\n", b"")
        odd = None
        if odd_letters(text):
            place = find_odd_letter(text)
            line_ends = text.count(b"\n", 0, place)
            odd = place - line_ends, line + line_ends
        return _Piece([], letters, np.array([len(letters)], dtype=np.int64), len(text) - len(letters), odd)
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
    letters = array[in_body].tobytes()
    odd = None
    if found := odd_letters(letters):
        position = letters.index(b">") if b">" in found else find_odd_letter(letters)
        odd = position, line + text.count(b"\n", 0, int(np.flatnonzero(in_body)[position]))
    return _Piece(headers.removesuffix("\n").split("\n>")[1:], letters, lengths, num_whole_lines, odd)


def _unix_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Make every line end (LF, CRLF, CR) LF, also a CRLF that a border of blocks cuts."""
    held = b""
    for block in blocks:
        block = held + block
        held = b"\r" if block.endswith(b"\r") else b""
        block = block.removesuffix(b"\r")
        if block:
            yield block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block
    if held:
        yield b"\n"
