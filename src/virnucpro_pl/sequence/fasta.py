"""Parser of FASTA, block by block, without a Python object for each line."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.sequence.alphabet import OddLetter, find_odd_letter, odd_letters
from virnucpro_pl.sequence.blocks import MAX_HEADER_BYTES, MAX_RECORD_LETTERS, DamagedRecordError, header_too_long


class Part(NamedTuple):
    """Headers of some records and their letters, without line ends."""

    headers: list[str]
    """N headers without ``>``"""
    letters: bytes
    """letters below the headers, end to end"""
    lengths: NDArray[np.int64]
    """(N,) number of letters of each record"""
    odd: OddLetter | None
    """first letter of the file that is no nucleotide, once it has been read"""


class _Piece(NamedTuple):
    """Content of a block; letters above its first header belong to the previous record."""

    headers: list[str]
    letters: bytes
    lengths: NDArray[np.int64]
    """(1 + N,) number of letters above all headers, and of each record"""
    num_lines: int
    """number of line ends"""
    odd: tuple[int, int] | None
    """position and line of the first letter that is no nucleotide, or of ``>``"""


def whole_records(blocks: Iterator[bytes], first_line: int = 1) -> Iterator[Part]:
    r"""Split the blocks of a FASTA file into records; blocks may end anywhere, the first one starts with ``>``.

    Line ends are LF, CRLF or CR. Headers are UTF-8; other bytes are escaped.

    Args:
        blocks: the text.
        first_line: number of the first line.

    Raises:
        DamagedRecordError: a line of letters contains ``>``.
        ValueError: a header or a record is too long.

    >>> [(part.headers, part.letters) for part in whole_records(iter([b">a\nAC", b"GT\n>b\nT", b"\n"]))]
    [(['a'], b'ACGT'), (['b'], b'T')]
    """
    last_header: list[str] = []
    last_letters: list[bytes] = []  # pieces: a record may have hundreds of megabytes
    last_length = 0
    num_records = 0  # complete records
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
    """Return a letter that is no nucleotide with its record.

    Args:
        odd: position among the letters, and line.
        num_records: number of earlier records.
        headers: headers of the records.
        letters: letters of the piece.
        lengths: (N,) number of letters of each record in this piece.
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
    """Split block by block, never within a header."""
    pieces: list[bytes] = []  # unfinished line, which may be a header
    header_bytes = 0  # their size, if it is a header
    goes_on = False  # the block ends within a line of letters
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
    """Split some lines, from number ``line`` on; ``goes_on``: the first is the rest of a line of letters."""
    if b">" not in text:  # part of a long record
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
    """Convert all line ends (LF, CRLF, CR) to LF, also a CRLF across two blocks."""
    held = b""
    for block in blocks:
        block = held + block
        held = b"\r" if block.endswith(b"\r") else b""
        block = block.removesuffix(b"\r")
        if block:
            yield block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block
    if held:
        yield b"\n"
