"""Reading FASTA and FASTQ, plain or compressed, from files or standard input, block by block.

FASTA is split here rather than by dnaio because the published tool reads it through Biopython, whose rules differ
(``docs/decisions/0003-fasta-reader.md``); FASTQ goes through dnaio, decompression through xopen.
"""

import glob
import hashlib
import io
import sys
import zlib
from collections.abc import Iterator, Sequence, Sized
from pathlib import Path
from typing import BinaryIO, NamedTuple

import dnaio
import numpy as np
from numpy.typing import NDArray
from xopen import xopen

from virnucpro_pl.errors import UserError

BLOCK_BYTES = 1 << 20
STDIN = "-"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class RecordBlock(NamedTuple):
    """Some consecutive input sequences (reads or contigs), their letters laid end to end."""

    names: list[str]
    """First word of each header; empty when the header is."""
    descriptions: list[str]
    """Each whole header after ``>`` or ``@``, without trailing blanks."""
    letters: bytes
    """The sequences as they stand in the file, blanks and line ends removed."""
    lengths: NDArray[np.int64]
    """(N,) letters of each sequence."""


def resolve_inputs(inputs: str | Path | Sequence[str | Path]) -> list[str]:
    """Expand one path, several paths or patterns, or ``-`` to the list of files to read.

    Raises:
        UserError: a path is missing, is a folder, or no path was given.
    """
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not given:
        raise UserError("input: no file given; name a FASTA or FASTQ file, several of them, or - for standard input")
    paths: list[str] = []
    for entry in map(str, given):
        if entry == STDIN or Path(entry).exists():
            paths.append(entry)
        else:
            paths.extend(_matches(entry))
    if paths.count(STDIN) > 1:
        raise UserError("input: - (standard input) can be named once only")
    for path in paths:
        if path != STDIN and Path(path).is_dir():
            raise UserError(f"input: {path} is a folder; name the files in it, for example '{path}/*.fasta'")
    return paths


def _matches(pattern: str) -> list[str]:
    found = sorted(glob.glob(pattern))
    if not found:
        raise UserError(f"input: {pattern} does not exist; check the path (relative paths start at {Path.cwd()})")
    return found


def read_records(path: str, digest: "hashlib._Hash | None" = None) -> Iterator[RecordBlock]:
    """Yield the records of one file in blocks of about 1 MiB, in file order.

    Args:
        path: a file, or ``-`` for standard input; format and compression are told by the content.
        digest: updated with the raw bytes of the file as they are read.

    Raises:
        UserError: the file cannot be read, is neither FASTA nor FASTQ, or is damaged.
    """
    try:
        with sys.stdin.buffer if path == STDIN else open(path, "rb") as raw:
            watched = io.BufferedReader(_Watched(raw, digest), BLOCK_BYTES)
            yield from _read_stream(xopen(watched, "rb", threads=0), "standard input" if path == STDIN else path)
            while watched.read(BLOCK_BYTES):  # what a decompressor left unread belongs to the digest too
                pass
    except EOFError as error:
        raise UserError(f"{path}: the compressed file is cut short ({error}); copy it again") from error
    except (zlib.error, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read: {reason}") from error


def _read_stream(stream: BinaryIO, name: str) -> Iterator[RecordBlock]:
    first = stream.read(BLOCK_BYTES).removeprefix(_BYTE_ORDER_MARK)
    first = _skip_leading_comments(first, stream)
    if not first:
        return
    if first.startswith(b">"):
        yield from _read_fasta(_Replayed(first, stream))
    elif first.startswith(b"@"):
        yield from _read_fastq(_Replayed(first, stream), name)
    else:
        shown = first[:40].split(b"\n")[0].decode("ascii", "backslashreplace").strip()
        raise UserError(
            f"{name}: neither FASTA nor FASTQ: the first record should begin with '>' or '@', found '{shown}'"
        )


def _skip_leading_comments(text: bytes, stream: BinaryIO) -> bytes:
    """Drop blank lines and ``;`` or ``#`` comment lines before the first record."""
    while True:
        text = text.lstrip(b" \t\r\n")
        if text and text[:1] not in b";#":
            return text
        _, end, rest = text.replace(b"\r", b"\n").partition(b"\n")
        text = rest
        if not end or not text.strip():
            more = stream.read(BLOCK_BYTES)
            if not more:
                return text.lstrip(b" \t\r\n")
            text = (b"" if end else b";") + text + more


def _read_fasta(stream: BinaryIO) -> Iterator[RecordBlock]:
    """Split FASTA by the rules of Biopython 1.88: blanks, tabs and line ends go, every other letter stays."""
    for text in _whole_records(stream):
        header_starts, header_ends, body_ends, line_ends = _find_lines(text)
        headers = [text[a:b] for a, b in zip(header_starts.tolist(), header_ends.tolist(), strict=True)]
        bodies = [text[a:b] for a, b in zip((header_ends + 1).tolist(), body_ends.tolist(), strict=True)]
        letters = b"".join(bodies).replace(b"\n", b"")
        lengths = np.maximum(body_ends - header_ends - 1, 0) - line_ends
        del text, bodies  # either may hold hundreds of megabytes while the block is worked on
        if b" " in letters or b"\t" in letters:
            letters, lengths = _without_blanks(letters, lengths)
        yield _block(b"\n".join(headers).decode("utf-8", "backslashreplace").split("\n"), letters, lengths)


def _find_lines(text: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each record of ``text``, where its header starts and ends, where its body ends, its line ends.

    The last, the line ends within the body, is a number; the others are positions.
    """
    array = np.frombuffer(text, dtype=np.uint8)
    line_ends = np.flatnonzero(array == ord("\n"))
    before_header = np.flatnonzero(array[line_ends[: len(line_ends) - text.endswith(b"\n")] + 1] == ord(">"))
    header_lines = np.concatenate([[0], before_header + 1])
    header_starts = np.concatenate([[0], line_ends[before_header] + 1]) + 1
    header_ends = np.append(line_ends, len(text))[header_lines]
    body_ends = np.append(header_starts[1:] - 1, len(text))
    within = np.diff(np.append(header_lines, len(line_ends))) - 1
    return header_starts, header_ends, body_ends, np.maximum(within, 0)


def _without_blanks(letters: bytes, lengths: NDArray[np.int64]) -> tuple[bytes, NDArray[np.int64]]:
    array = np.frombuffer(letters, dtype=np.uint8)
    blanks = np.flatnonzero((array == ord(" ")) | (array == ord("\t")))
    record = np.searchsorted(np.cumsum(lengths), blanks, side="right")
    return letters.translate(None, b" \t"), lengths - np.bincount(record, minlength=len(lengths))


def _block(headers: list[str], letters: bytes, lengths: NDArray[np.int64]) -> RecordBlock:
    descriptions = [header.rstrip() for header in headers]
    names = [(description.split(None, 1) or ("",))[0] for description in descriptions]
    return RecordBlock(names, descriptions, letters, lengths)


def _whole_records(stream: BinaryIO) -> Iterator[bytes]:
    """Regroup a stream that starts with ``>`` so that each piece ends where a record ends."""
    pieces: list[bytes] = []
    for text in _unix_lines(stream):
        cut = text.rfind(b"\n>") + 1
        if cut or (text.startswith(b">") and pieces and pieces[-1].endswith(b"\n")):
            pieces.append(text[:cut])
            text = text[cut:]
            whole = b"".join(pieces)
            pieces.clear()
            yield whole
            del whole
        pieces.append(text)
    if pieces:
        yield b"".join(pieces)


def _unix_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Read blocks with every line end (LF, CRLF, CR) as LF."""
    held = b""
    while block := stream.read(BLOCK_BYTES):
        block, held = held + block, b""
        if b"\r" in block:
            if block.endswith(b"\r"):  # the LF of this CR may open the next block
                block, held = block[:-1], b"\r"
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if block:
            yield block
    if held:
        yield b"\n"


def _read_fastq(stream: BinaryIO, name: str) -> Iterator[RecordBlock]:
    headers: list[str] = []
    sequences: list[str] = []
    pending = 0
    try:
        for entry in dnaio.FastqReader(io.BufferedReader(stream, BLOCK_BYTES)):  # type: ignore[type-var]
            headers.append(entry.name)
            sequences.append(entry.sequence)
            pending += len(entry.sequence)
            if pending >= BLOCK_BYTES:
                yield _fastq_block(headers, sequences)
                headers, sequences, pending = [], [], 0
    except (dnaio.FileFormatError, ValueError) as error:
        raise UserError(f"{name}: damaged FASTQ: {' '.join(str(error).split())}") from error
    if headers:
        yield _fastq_block(headers, sequences)


def _fastq_block(headers: list[str], sequences: list[str]) -> RecordBlock:
    lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
    return _block(headers, "".join(sequences).encode("ascii"), lengths)


class _Watched(io.RawIOBase):
    """Pass a binary stream through, feeding every byte to a digest."""

    def __init__(self, source: BinaryIO, digest: "hashlib._Hash | None"):
        self._source = source
        self._digest = digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        block = self._source.read(len(buffer))
        buffer[: len(block)] = block
        if self._digest is not None:
            self._digest.update(block)
        return len(block)


class _Replayed(io.RawIOBase):
    """A binary stream whose first block has been read already."""

    def __init__(self, first: bytes, rest: BinaryIO):
        self._first = first
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._first:
            block, self._first = self._first[:size] if size >= 0 else self._first, self._first[size:] if size >= 0 else b""
            return block
        return self._rest.read(size)

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)
