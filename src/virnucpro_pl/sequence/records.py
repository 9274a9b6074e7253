"""Reading FASTA and FASTQ, plain or compressed, from files or standard input, block by block.

FASTA is split here rather than by dnaio because the published tool reads it through Biopython, whose rules differ
(``docs/decisions/0003-fasta-reader.md``); FASTQ goes through dnaio, decompression through xopen.
"""

import glob
import hashlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import dnaio
import numpy as np
from numpy.typing import NDArray
from xopen import xopen

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence.fasta import whole_records

BLOCK_BYTES = 1 << 20
STDIN = "-"
_Result = TypeVar("_Result")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LEADING_COMMENTS = re.compile(rb"(?:[ \t\r\n]+|[;#][^\r\n]*[\r\n])*+")


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
        if not entry:
            raise UserError("input: one of the paths is empty; name a FASTA or FASTQ file, or - for standard input")
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
    name = "standard input" if path == STDIN else path
    with open_input(path) as raw:
        watched = io.BufferedReader(_Watched(raw, digest), BLOCK_BYTES)
        yield from _read_text(_Text(watched, name), name)
        while watched.read(BLOCK_BYTES):  # what a decompressor left unread belongs to the digest too
            pass


def open_input(path: str) -> AbstractContextManager[BinaryIO]:
    """Open a file, or standard input, for its raw bytes; UserError if that cannot be."""
    try:
        return nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}; check the path and its permissions") from error


def _read_text(text: "_Text", name: str) -> Iterator[RecordBlock]:
    first = text.read(BLOCK_BYTES).removeprefix(_BYTE_ORDER_MARK)
    first = _skip_leading_comments(first, text)
    text.unread(first)
    if first.startswith(b">"):
        yield from _read_fasta(text, name)
    elif first.startswith(b"@"):
        yield from _read_fastq(text, name)
    elif first:
        shown = re.split(rb"[\r\n]", first[:40])[0].decode("ascii", "backslashreplace").strip()
        raise UserError(
            f"{name}: neither FASTA nor FASTQ: the first record should begin with '>' or '@', found '{shown}'"
        )


def _skip_leading_comments(text: bytes, stream: "_Text") -> bytes:
    """Drop blank lines and ``;`` or ``#`` comment lines before the first record."""
    while True:
        text = text[_LEADING_COMMENTS.match(text).end() :]  # type: ignore[union-attr]  # it matches the empty text
        if text and text[:1] not in b";#":
            return text
        more = stream.read(BLOCK_BYTES)
        if not more:
            return b""
        text = text[:1] + more  # of a comment line that goes on, its first letter is enough


def _read_fasta(stream: "_Text", name: str) -> Iterator[RecordBlock]:
    """Split FASTA by the rules of Biopython 1.88: blanks, tabs and line ends go, every other letter stays."""
    for headers, letters, lengths in whole_records(iter(lambda: stream.read(BLOCK_BYTES), b"")):
        if b" " in letters or b"\t" in letters:
            letters, lengths = _without_blanks(letters, lengths)
        block = _block(headers, letters, lengths)
        if not letters.isascii():
            raise UserError(
                f"{name}: {_name_first_odd(block)} holds bytes that are no letters; mend or drop the record"
            )
        yield block


def _without_blanks(letters: bytes, lengths: NDArray[np.int64]) -> tuple[bytes, NDArray[np.int64]]:
    array = np.frombuffer(letters, dtype=np.uint8)
    blanks = np.flatnonzero((array == ord(" ")) | (array == ord("\t")))
    record = np.searchsorted(np.cumsum(lengths), blanks, side="right")
    return letters.translate(None, b" \t"), lengths - np.bincount(record, minlength=len(lengths))


def _name_first_odd(block: RecordBlock) -> str:
    """Describe the first record with a letter outside ASCII."""
    position = next(i for i, letter in enumerate(block.letters) if letter > 127)
    record = int(np.searchsorted(np.cumsum(block.lengths), position, side="right"))
    return f"the sequence of '{block.names[record]}'"


def _block(headers: list[str], letters: bytes, lengths: NDArray[np.int64]) -> RecordBlock:
    descriptions = [*map(str.rstrip, headers)]
    names = [(description.split(None, 1) or ("",))[0] for description in descriptions]
    return RecordBlock(names, descriptions, letters, lengths)


def _read_fastq(stream: "_Text", name: str) -> Iterator[RecordBlock]:
    headers: list[str] = []
    sequences: list[str] = []
    pending = 0
    try:
        for entry in dnaio.FastqReader(io.BufferedReader(stream, BLOCK_BYTES)):
            headers.append(entry.name)
            sequences.append(entry.sequence)
            pending += len(entry.sequence)
            if pending >= BLOCK_BYTES:
                yield _fastq_block(headers, sequences)
                headers, sequences, pending = [], [], 0
    except UserError:
        raise
    except (dnaio.FileFormatError, ValueError) as error:
        raise UserError(f"{name}: damaged FASTQ: {' '.join(str(error).split())}; mend or copy it again") from error
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
        size = self._source.readinto(buffer)  # type: ignore[attr-defined]
        if self._digest is not None:
            self._digest.update(memoryview(buffer)[:size])
        return size  # type: ignore[no-any-return]


class _Text(io.RawIOBase):
    """The decompressed bytes of an input, whose errors a user understands."""

    def __init__(self, source: BinaryIO, name: str):
        self._name = name
        self._unread = b""
        self._stream = self._explained(lambda: xopen(source, "rb", threads=0))

    def readable(self) -> bool:
        return True

    def unread(self, block: bytes) -> None:
        """Let ``block`` be read next."""
        self._unread = block

    def read(self, size: int = BLOCK_BYTES) -> bytes:
        if self._unread:
            block, self._unread = self._unread[:size], self._unread[size:]
            return block
        return self._explained(lambda: self._stream.read(size))

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def _explained(self, action: Callable[[], _Result]) -> _Result:
        try:
            return action()
        except EOFError as error:
            raise UserError(f"{self._name}: the compressed data is cut short; copy the file again") from error
        except Exception as error:  # every decompressor has an error class of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{self._name}: damaged or unreadable: {reason}; copy the file again") from error
