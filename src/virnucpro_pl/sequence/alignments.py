"""Readers of SAM, BAM and CRAM files; they return the reads of ``samtools fasta``.

SAM is parsed here, because htslib refuses lines with a reference that the header lacks, and keeps the whole header in
memory. BAM and CRAM are read by pysam (``docs/decisions/0012-alignments.md``).
"""

import importlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import dropwhile, takewhile
from threading import Event, Thread
from typing import Any, BinaryIO

from virnucpro_pl.errors import escaped
from virnucpro_pl.sequence.blocks import BlockFiller, RecordBlock
from virnucpro_pl.sequence.mates import mate_name
from virnucpro_pl.sequence.streams import MAX_LINE_BYTES, Text

MAX_BAM_HEADER_BYTES = 256 << 20
END_MARKERS = {
    "bam": (bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000"),),
    "cram": (
        bytes.fromhex("0f000000ffffffff0fe0454f4600000000010005bdd94f0001000606010001000100ee63014b"),
        bytes.fromhex("0b000000ffffffff0fe0454f460000000001000001000606010001000100"),
    ),
}
"""Last bytes of complete BAM (in BGZF) and CRAM files"""

_PAIRED, _REVERSE, _FIRST, _LAST, _SECONDARY, _SUPPLEMENTARY = 0x1, 0x10, 0x40, 0x80, 0x100, 0x800
_COMPLEMENT = str.maketrans("ACGTUMRYKVHDBacgtumrykvhdb", "TGCAAKYRMBDHVtgcaakyrmbdhv")
_SAM_HEADER = re.compile(rb"@(?:CO\t|[A-Za-z]{2}(?:\t[A-Za-z][A-Za-z0-9]:[^\t\r\n]*)+\r?(?:\n|$))")
_SAM_LINE = re.compile(
    rb"[!-?A-~]{1,254}\t\d{1,5}\t[^\t\n]+\t\d+\t\d+\t(?:\*|[0-9MIDNSHPX=]+)\t[^\t\n]+\t\d+\t-?\d+\t(?:\*|[A-Za-z=.]+)"
)
_SAM_SEQUENCE = re.compile(r"\*|[A-Za-z=.]+")
_FASTQ_RECORD = re.compile(rb"@[^\n]*\n[^\t\n@]*\n\+")


def is_sam(text: bytes) -> bool:
    r"""Return whether the first lines are SAM, with or without header, and not FASTQ, which also begins with ``@``.

    >>> is_sam(b"@HD\tVN:1.6\n"), is_sam(b"@HD\tVN:1.6\nACGT\n+\nIIII\n")
    (True, False)
    """
    return bool(_SAM_LINE.match(text) or (_SAM_HEADER.match(text) and not _FASTQ_RECORD.match(text)))


class _Alignments:
    """Filter of alignments: each read once, on its own strand, with names for both mates."""

    def __init__(self, filler: BlockFiller, skipped: dict[str, int]):
        self._filler = filler
        self._skipped = skipped
        skipped.update(secondary=0, supplementary=0)

    def add(self, name: str, flag: int, sequence: str) -> RecordBlock | None:
        if flag & (_SECONDARY | _SUPPLEMENTARY):
            self._skipped["secondary" if flag & _SECONDARY else "supplementary"] += 1
            return None
        if " " in name or not name.isprintable():  # invalid, but it occurs
            name = escaped(name).replace(" ", "\\x20")
        if flag & _PAIRED and flag & (_FIRST | _LAST) in (_FIRST, _LAST):
            name = mate_name(name, 1 if flag & _FIRST else 2)
        if flag & _REVERSE:
            sequence = sequence.translate(_COMPLEMENT)[::-1]
        return self._filler.add(name, sequence)


def read_sam(text: Text, filler: BlockFiller, skipped: dict[str, int]) -> Iterator[RecordBlock]:
    """Yield the reads of a SAM file; its header may be missing.

    Raises:
        UserError: a line is too long.
        ValueError: a line is no valid alignment.
    """
    text.limit_lines()
    alignments = _Alignments(filler, skipped)
    lines = io.BufferedReader(text, 1 << 20)
    for number, line in enumerate(dropwhile(lambda line: line.startswith(b"@"), lines), start=1):
        fields = line.rstrip(b"\r\n").split(b"\t", 10)
        if fields == [b""]:
            continue
        if len(fields) < 11 or not fields[1].isdigit() or len(fields[1]) > 5:
            raise ValueError(f"alignment {number:,} has fewer than eleven fields")
        name, sequence = fields[0].decode("utf-8", "backslashreplace"), fields[9].decode("ascii")
        if not _SAM_SEQUENCE.fullmatch(sequence):
            raise ValueError(f"the sequence of '{name}' holds characters that are no letters")
        if block := alignments.add(name, int(fields[1]), "" if sequence == "*" else sequence):
            yield block


def read_bam(text: Text, filler: BlockFiller, skipped: dict[str, int], block_bytes: int) -> Iterator[RecordBlock]:
    """Yield the reads of a decompressed BAM file.

    Raises:
        ValueError, OSError: the file is damaged, or claims more memory than a read needs.
        UserError: the compressed data is damaged.
        ImportError: pysam is missing.
    """
    return _read_with_pysam(_checked_bam(text, block_bytes), _Alignments(filler, skipped))


def read_cram(text: Text, filler: BlockFiller, skipped: dict[str, int], block_bytes: int) -> Iterator[RecordBlock]:
    """Yield the reads of a CRAM file; its reference, if it needs one, must be on this machine.

    Raises:
        ValueError, OSError: the file is damaged, or its reference is missing.
        ImportError: pysam is missing.
    """
    return _read_with_pysam(text.blocks(block_bytes), _Alignments(filler, skipped))


def _read_with_pysam(pieces: Iterator[bytes], alignments: _Alignments) -> Iterator[RecordBlock]:
    os.environ.setdefault("REF_PATH", os.devnull)  # otherwise htslib may download a reference
    pysam: Any = importlib.import_module("pysam")  # an extra
    pysam.set_verbosity(0)  # its messages are raised as exceptions, too
    pysam.set_encoding_error_handler("backslashreplace")
    with _pipe(pieces) as stream:
        try:
            with pysam.AlignmentFile(stream, check_sq=False) as file:
                for read in file.fetch(until_eof=True):
                    if block := alignments.add(read.query_name or "", read.flag, read.query_sequence or ""):
                        yield block
        except OSError as error:  # its text is about the pipe
            raise ValueError("its records cannot be decoded") from error


@contextmanager
def _pipe(pieces: Iterator[bytes]) -> Iterator[BinaryIO]:
    """Yield the reading end of a pipe, which htslib needs and a thread fills.

    An error of the thread is raised at the end, before errors of the reader.
    """
    read_end, write_end = os.pipe()
    enough = Event()
    failures: list[Exception] = []

    def fill() -> None:
        try:
            with open(write_end, "wb") as sink:
                sink.writelines(takewhile(lambda _: not enough.is_set(), pieces))
        except Exception as error:  # noqa: BLE001  # raised again in the main thread
            failures.append(error)

    thread = Thread(target=fill, name="alignments")
    thread.start()
    with open(read_end, "rb", buffering=0) as stream:
        try:
            yield stream
        finally:
            enough.set()
            while stream.read(1 << 16):  # drained, as pysam may keep a descriptor
                pass
            thread.join()
            if failures:
                raise failures[0]


def _checked_bam(text: Text, block_bytes: int) -> Iterator[bytes]:
    """Yield decompressed BAM; refuse impossible sizes before htslib allocates them."""
    yield _checked_header(text)
    split_size = b""  # part of a record's size before the end of a block
    skip = 0
    for block in text.blocks(block_bytes):
        block, split_size = split_size + block, b""
        position = skip
        while position + 4 <= len(block):
            size = int.from_bytes(block[position : position + 4], "little")
            if size > MAX_LINE_BYTES:
                raise ValueError(f"a record claims {size:,} bytes, which no read has")
            position += 4 + size
        if position < len(block):
            block, split_size = block[:position], block[position:]
        skip = position - len(block)
        yield block
    yield split_size


def _checked_header(text: Text) -> bytes:
    """Return the header: text and reference sequences."""
    header = bytearray()

    def take(size: int) -> int:
        """Read some bytes; the last four are the size of the next part."""
        if len(header) + size > MAX_BAM_HEADER_BYTES:
            raise ValueError(f"a header of more than {MAX_BAM_HEADER_BYTES >> 20} MiB")
        piece = text.read_fully(size)
        if len(piece) < size:
            raise ValueError("truncated within the header")
        header.extend(piece)
        return int.from_bytes(header[-4:], "little")

    text_bytes = take(8)
    num_references = take(text_bytes + 4)
    if num_references * 9 > MAX_BAM_HEADER_BYTES:
        raise ValueError(f"a header of {num_references:,} reference sequences")
    for _ in range(num_references):
        name_bytes = take(4)
        take(name_bytes + 4)
    return bytes(header)
