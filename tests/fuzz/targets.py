"""What is fuzzed: how inputs are made, and what must hold of each.

A target makes bytes from a generator of random numbers and checks them; ``AssertionError`` and every other exception
is a finding.
"""

import bz2
import gzip
import io
import lzma
import random
import struct
import sys
import zlib
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

from Bio import SeqIO
from Bio.SeqIO.QualityIO import FastqGeneralIterator
from references import Record, RefusedError, from_first_record, name_of, records_of, unpacked, zstd

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence import records as reader
from virnucpro_pl.sequence.alignments import is_sam

_SMALL_BYTES = 600
BLOCK_BYTES = (1, 2, 3, 7, 16, 64, 1 << 10, 1 << 20)


class Reading(NamedTuple):
    """How an input is read."""

    block_bytes: int
    drip: int
    """Most bytes that a read of the file gives, 0 for all: pipes give few at a time"""


class _Dripping(io.BytesIO):
    def __init__(self, data: bytes, most: int):
        super().__init__(data)
        self._most = most

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(self._most, size) if size is not None and size >= 0 else size)

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        return super().readinto(memoryview(buffer)[: self._most])


def random_reading(generator: random.Random, data: bytes) -> Reading:
    """Return a way to read some bytes that does not take seconds."""
    is_small = len(data) < _SMALL_BYTES
    blocks = BLOCK_BYTES if is_small else BLOCK_BYTES[-2:]
    return Reading(generator.choice(blocks), generator.choice((0, 0, 0, 1, 5, 4096) if is_small else (0, 4096)))


def read(data: bytes, how: Reading) -> list[Record] | None:
    """Return what the program reads, None where it refuses with one line."""
    found: list[Record] = []
    source = _Dripping(data, how.drip) if how.drip else io.BytesIO(data)
    with (
        mock.patch.object(reader, "BLOCK_BYTES", how.block_bytes),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(source)),
    ):
        try:
            for block in reader.read_records("-"):
                assert len(block.names) == len(block.descriptions) == len(block.lengths) > 0
                assert [*map(name_of, block.descriptions)] == block.names
                start = 0
                for description, length in zip(block.descriptions, block.lengths.tolist(), strict=True):
                    found.append((description, block.letters[start : start + length].decode("ascii")))
                    start += length
                assert start == len(block.letters)
        except UserError as error:
            told = str(error)
        else:
            return found
    assert "\n" not in told, "a message of several lines"
    return None


def wanted(data: bytes) -> list[Record] | None:
    """Return what the rules say, None where they refuse."""
    try:
        return records_of(unpacked(data))
    except RefusedError:
        return None


def has_rules(data: bytes) -> bool:
    """Return whether the rules say something: not of alignments, nor of a CR within a line of FASTQ."""
    try:
        text = unpacked(data)
    except RefusedError:
        return True
    start = from_first_record(text)
    return not (is_sam(text.removeprefix(b"\xef\xbb\xbf")) or is_sam(start)) and not (
        start.startswith(b"@") and b"\r" in start.replace(b"\r\n", b"")
    )


def check_rules(data: bytes, how: Reading) -> bool:
    """Compare the program with the rules; return whether the input was read."""
    found = read(data, how)
    if not has_rules(data):
        return False
    expected = wanted(data)
    assert found == expected, f"the program reads {found!r:.300}, the rules say {expected!r:.300}"
    return found is not None


# --- FASTA


def make_fasta(generator: random.Random) -> bytes:
    """FASTA of all line ends, blanks, comments, empty records, glued records, and bytes that do not belong."""
    end = generator.choice((b"\n", b"\n", b"\r\n", b"\r", None))
    lines: list[bytes] = [_comment(generator) for _ in range(generator.choice((0, 0, 0, 1, 3)))]
    for _ in range(generator.randint(0, 6)):
        lines.append(b">" + _header(generator))
        lines += [_letters(generator) for _ in range(generator.choice((0, 1, 1, 2, 5)))]
    text = b"".join(line + (end or generator.choice((b"\n", b"\r\n", b"\r"))) for line in lines)
    if generator.random() < 0.3:
        text = text.rstrip(b"\r\n")
    if generator.random() < 0.1:
        text = b"\xef\xbb\xbf" + text
    return _damaged(generator, text) if generator.random() < 0.3 else text


def check_fasta(data: bytes, how: Reading) -> bool:
    """Compare with the rules and, where it reads the file too, with Biopython."""
    was_read = check_rules(data, how)
    if was_read and data.startswith(b">") and data.isascii():
        with io.TextIOWrapper(io.BytesIO(data), encoding="ascii") as stream:
            by_biopython = [(entry.id, str(entry.seq)) for entry in SeqIO.parse(stream, "fasta")]
        found = [(name_of(header), letters) for header, letters in read(data, how) or []]
        # Biopython takes the first word after any blanks; so do we.
        assert found == by_biopython, f"the program reads {found!r:.300}, Biopython {by_biopython!r:.300}"
    return was_read


# --- FASTQ


def make_fastq(generator: random.Random) -> bytes:
    """FASTQ with both line ends, repeated headers, empty reads, blank lines, and records that are damaged."""
    end = generator.choice((b"\n", b"\n", b"\r\n"))
    lines: list[bytes] = []
    for _ in range(generator.randint(1, 6)):
        header = _header(generator) if generator.random() < 0.2 else generator.choice((b"a", b"r/1", b"x 1:N:0:A", b""))
        letters = generator.choice((b"GATTACA", b"", b"ACGTN", _letters(generator)))
        qualities = bytes(generator.choices(range(33, 127), k=len(letters)))
        lines += [b"@" + header, letters, b"+" + generator.choice((b"", b"", b"", header)), qualities]
    if generator.random() < 0.15:
        lines.pop(generator.randrange(len(lines)))
    if generator.random() < 0.15:
        lines.insert(generator.randrange(len(lines) + 1), generator.choice((b"", b" ", b"+", b"@x", b"AC")))
    lines += [generator.choice((b"", b"", b" ", b"\t"))] * generator.choice((0, 0, 0, 1, 2, 5))
    text = end.join(lines) + generator.choice((end, end, b""))
    return _damaged(generator, text) if generator.random() < 0.2 else text


def check_fastq(data: bytes, how: Reading) -> bool:
    """Compare with the rules and, where it reads the file too, with Biopython."""
    was_read = check_rules(data, how)
    found = read(data, how) or []
    # Biopython takes a read without letters for a damaged one, and strips blanks at the ends of letters.
    plain = all(letters and letters == letters.strip() and header == header.strip() for header, letters in found)
    if was_read and found and plain and data.startswith(b"@") and b"\r" not in data.replace(b"\r\n", b""):
        text = data.decode("ascii").replace("\r\n", "\n").rstrip() + "\n"
        try:
            by_biopython = [(title.rstrip(), letters) for title, letters, _ in FastqGeneralIterator(io.StringIO(text))]
        except ValueError:
            return was_read  # it refuses letters that it takes for qualities
        assert found == by_biopython, f"the program reads {found!r:.300}, Biopython {by_biopython!r:.300}"
    return was_read


# --- containers


def bgzip_member(data: bytes) -> bytes:
    """One member as ``bgzip`` writes it: a gzip member that tells its length."""
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(data) + deflate.flush()
    start = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0"
    tail = struct.pack("<II", zlib.crc32(data), len(data))
    return start + struct.pack("<H", len(start) + 2 + len(body) + 7) + body + tail


SKIPPABLE_FRAME = b"\x50\x2a\x4d\x18\4\0\0\0pzst"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=len(data)),
    "bgzip": bgzip_member,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}


def make_container(generator: random.Random) -> bytes:
    """Several members of one kind, some empty; padded, followed by other bytes, cut anywhere, or damaged."""
    text = make_fasta(generator) if generator.random() < 0.7 else make_fastq(generator)
    if generator.random() < 0.03:
        text *= 200
    kind = generator.choice([*PACKERS])
    cuts = sorted(generator.randint(0, len(text)) for _ in range(generator.choice((0, 0, 1, 2, 5))))
    members = [PACKERS[kind](text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    if kind == "zstd" and generator.random() < 0.2:
        members.insert(generator.randrange(len(members) + 1), SKIPPABLE_FRAME)
    if kind == "bgzip" and generator.random() < 0.7:
        members.append(bgzip_member(b""))
    data = b"".join(member + _padding(generator) for member in members)
    if generator.random() < 0.01:
        data += bytes(70_000)  # more than is read at once
    match generator.choice(("whole", "whole", "whole", "cut", "followed", "damaged")):
        case "cut":
            return data[: generator.randint(0, len(data))]
        case "followed":
            other = PACKERS[generator.choice([*PACKERS])](b">z\nACGT\n")
            more = (b"x", b">a\nAC\n", b"\x1f", b"\x1f\x8b", b"BZ", b"\xfd7z", b"\x28\xb5", other, other[:9])
            return data + generator.choice(more)
        case "damaged":
            return _damaged(generator, data)
    return data


# --- parts of inputs

_WORDS = (
    *(b"a", b"read/1", b"x 1:N:0:ACGT", b"", b" led by blanks", b"\ttab", b"\xc3\xa9\xe7\x97\x85", b"\xff\x80", b"a>b"),
    *(b"=1+1", b"@x", b">", b"\xc2\xa0", b"end ", b"\x0b\x1c\x85", b"a\0b", b"NA", b'"q', b"+"),
)
_ODD_LINES = (
    *(b"AC GT", b"\tAC\tGT ", b"AC-GT.*", b"RYKM", b"AC>b", b"AC\xffGT", b"A\0C", b" ", b"AC1", b"@AC", b";AC", b"+"),
)


def _comment(generator: random.Random) -> bytes:
    return generator.choice((b"", b" ", b"\t", b"; a comment", b"# >not a record", b";", b" # indented", b"#;>@"))


def _header(generator: random.Random) -> bytes:
    return b"".join(generator.choice(_WORDS) for _ in range(generator.choice((1, 1, 1, 2, 3))))


def _letters(generator: random.Random) -> bytes:
    if generator.random() < 0.85:
        return bytes(generator.choices(b"ACGTNacgtn", k=generator.choice((0, 1, 3, 60, 200))))
    return generator.choice(_ODD_LINES)


def _padding(generator: random.Random) -> bytes:
    return generator.choice((b"", b"", b"", b"", b"\0", bytes(512), b"\n", b"\r\n", b" \n"))


def _damaged(generator: random.Random, data: bytes) -> bytes:
    """Change, drop or insert some bytes."""
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 5))):
        place = generator.randint(0, len(changed))
        match generator.randrange(4):
            case 0 if place < len(changed):
                changed[place] ^= 1 << generator.randrange(8)
            case 1:
                del changed[place : place + generator.choice((1, 2, 30))]
            case 2:
                changed[place:place] = generator.choice((b">", b"@", b"\n", b"\r", b"\0", b"\x1f\x8b", b"\xff", b" "))
            case _:
                changed[place : place + 4] = generator.randbytes(4)
    return bytes(changed)


class Target(NamedTuple):
    """One kind of input."""

    make: Callable[[random.Random], bytes]
    check: Callable[[bytes, Reading], bool]


TARGETS = {
    "fasta": Target(make_fasta, check_fasta),
    "fastq": Target(make_fastq, check_fastq),
    "containers": Target(make_container, check_rules),
}
