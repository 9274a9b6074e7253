"""Reader of sequence files in all formats, from files or standard input, block by block.

FASTA is parsed here and not by dnaio, because the published tool reads it by Biopython, whose rules differ
(``docs/decisions/0003-fasta-reader.md``). FASTQ is read by dnaio, BAM by pysam.
"""

import glob
import hashlib
import io
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import dnaio
import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.sequence import fastq
from virnucpro_pl.sequence.alignments import END_MARKERS, is_sam, read_bam, read_cram, read_sam
from virnucpro_pl.sequence.alphabet import LetterCounts, OddLetter
from virnucpro_pl.sequence.blocks import BlockFiller, DamagedRecordError, RecordBlock, record_block
from virnucpro_pl.sequence.containers import PADDING, compression_of
from virnucpro_pl.sequence.fasta import whole_records
from virnucpro_pl.sequence.streams import STDIN, Text, open_input, shown_name, unchanged, watch

__all__ = ["BLOCK_BYTES", "STDIN", "InputFacts", "RecordBlock", "read_records", "resolve_inputs"]

log = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20
_FORMAT_BYTES = 1 << 16  # first bytes, by which the format is recognised
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# The group is not possessive, which Python before 3.11.5 gets wrong (gh-106052), but bounded: each repeat takes memory.
_LEADING_COMMENTS = re.compile(rb"(?:[ \t\r\n]++|[;#][^\r\n]*+[\r\n]){0,4096}")
_LINE_END = re.compile(rb"\r\n?|\n")
_ADVICE = {
    "fasta": "fix or remove the record",
    "fastq": fastq.ADVICE,
    "sam": "fix or copy it again",
    "bam": "copy it again",
    "cram": (
        "copy it again, or, if it needs its reference sequence, which is never fetched, name a folder of references in"
        " REF_PATH or give what samtools fasta makes of it"
    ),
}


class InputFacts:
    """Facts about an input, complete when all records have been read."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        """SHA-256 of the raw bytes"""
        self.format = "empty"
        """``fasta``, ``fastq``, ``sam``, ``bam``, ``cram``, or ``empty`` without records"""
        self.compression = "none"
        self.skipped: dict[str, int] = {}
        """Skipped alignments that repeat a read, by kind, as in ``samtools fasta``"""
        self.first_line = 1
        """Number of the first line of the first record"""
        self.letters = LetterCounts()
        self._num_records = 0

    def count(self, block: RecordBlock) -> None:
        """Count the letters of the next records."""
        if block.odd is not None and self.letters.first is None:
            index = int((block.odd > 0).argmax())
            record = self._num_records + index + 1
            line = self.first_line + 4 * (record - 1) + 1 if self.format == "fastq" else None
            self.letters.first = OddLetter(record, block.names[index], line)
        self.letters.add(block.letters, block.lengths, block.odd)
        self._num_records += len(block.names)

    def as_dict(self) -> dict[str, Any]:
        """Return the facts for ``run.json``."""
        skipped = {"skipped": self.skipped} if self.skipped else {}
        return {
            "sha256": self.digest.hexdigest(),
            "format": self.format,
            "compression": self.compression,
            **self.letters.as_dict(),
            **skipped,
        }


def resolve_inputs(inputs: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the files of one path, several paths or patterns, or ``-``.

    Raises:
        UserError: a path is missing, is a folder, or no path was given.
    """
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not given:
        raise UserError("input: no file given; give a FASTA or FASTQ file, several of them, or - for standard input")
    paths: list[str] = []
    for entry in map(str, given):
        if not entry:
            raise UserError("input: one of the paths is empty; give a FASTA or FASTQ file, or - for standard input")
        if entry == STDIN or _exists(entry):
            paths.append(entry)
        else:
            paths.extend(_matches(entry))
    if paths.count(STDIN) > 1:
        raise UserError("input: - (standard input) can be given only once")
    for path in paths:
        if path != STDIN and Path(path).is_dir():
            raise UserError(f"input: {path} is a folder; give the files in it, for example '{path}/*.fasta'")
    return paths


def _exists(path: str) -> bool:
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"input: {path}: {reason}; check the path and its permissions") from error
    return True


def _matches(pattern: str) -> list[str]:
    found = sorted(glob.glob(pattern))
    if not found:
        raise UserError(f"input: {pattern} does not exist; check the path (relative paths start at {Path.cwd()})")
    return found


def read_records(path: str, facts: InputFacts | None = None) -> Iterator[RecordBlock]:
    """Yield the records of one file in blocks of about 1 MiB, in file order.

    Args:
        path: a file, or ``-`` for standard input; format and compression are recognised by the content.
        facts: facts, filled while the file is read.

    Raises:
        UserError: the file cannot be read, is no sequence file, or is damaged.
    """
    name, facts = shown_name(path), facts or InputFacts()
    with open_input(path) as raw:
        watched = watch(raw, facts.digest, name)
        source = io.BufferedReader(watched, BLOCK_BYTES)
        facts.compression = compression_of(watched.head)
        with unchanged(raw, path):
            for block in _read_text(_begin(Text(source, facts.compression, name), facts), name, facts):
                facts.count(block)
                yield block
            _drain(source)
    is_packed_text = facts.compression == "bgzip" and facts.format != "bam"
    if is_packed_text and not watched.tail.endswith(END_MARKERS["bam"][0].rstrip(PADDING)):
        log.warning("Warning: %s: the end mark of bgzip is missing; check that the file is complete", escaped(name))
    has_end_mark = (facts.format, facts.compression) in (("bam", "bgzip"), ("cram", "none"))
    if has_end_mark and not watched.tail.endswith(tuple(mark.rstrip(PADDING) for mark in END_MARKERS[facts.format])):
        raise UserError(
            f"{name}: the end mark of a {facts.format.upper()} file is missing, so it is truncated; copy it again"
        )


def read_fastq_entries(path: str, sha256: str) -> Iterator[dnaio.SequenceRecord]:
    """Yield the reads of a FASTQ file unchanged, with their qualities.

    Args:
        path: a file that was read before.
        sha256: its SHA-256 at that time.

    Raises:
        UserError: the file cannot be read, or was changed.
    """
    facts = InputFacts()
    with open_input(path) as raw:
        watched = watch(raw, facts.digest, path)
        source = io.BufferedReader(watched, BLOCK_BYTES)
        failure: Exception | None = None
        try:
            text = _begin(Text(source, compression_of(watched.head), path), facts)
            yield from fastq.read_entries(text, facts.first_line, BLOCK_BYTES)
        except (ValueError, OSError) as error:
            failure = error
        _drain(source)
    if facts.digest.hexdigest() != sha256:
        raise UserError(f"{path}: was changed since it was read; restore the file") from failure
    if failure:
        raise failure


def _drain(source: BinaryIO) -> None:
    """Read the bytes that a decompressor left unread, which are part of the digest."""
    while source.read(BLOCK_BYTES):
        pass


def _begin(text: Text, facts: InputFacts) -> Text:
    """Skip text before the first record and recognise the format."""
    first = text.read_fully(max(BLOCK_BYTES, _FORMAT_BYTES)).removeprefix(_BYTE_ORDER_MARK)
    if not is_sam(first):
        first = _skip_leading_comments(first, text, facts)
    facts.format = _format_of(first)
    text.unread(first)
    return text


def _read_text(text: Text, name: str, facts: InputFacts) -> Iterator[RecordBlock]:
    filler = BlockFiller(BLOCK_BYTES)
    try:
        match facts.format:
            case "fasta":
                yield from _read_fasta(text, facts)
            case "fastq":
                yield from _read_fastq(text, filler, facts.first_line)
            case "sam":
                yield from read_sam(text, filler, facts.skipped)
            case "bam":
                yield from read_bam(text, filler, facts.skipped, BLOCK_BYTES)
            case "cram":
                yield from read_cram(text, filler, facts.skipped, BLOCK_BYTES)
            case "unknown":
                raise _unknown_format(text.read_fully(40)[:40], name)
        if rest := filler.rest():
            yield rest
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{name}: BAM and CRAM are read by pysam: pip install 'virnucpro-pl[bam]'") from error
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        kind = facts.format.upper()
        advice = error.advice if isinstance(error, DamagedRecordError) else _ADVICE[facts.format]
        raise UserError(f"{name}: damaged {kind}: {reason}; {advice}") from error


def _unknown_format(first: bytes, name: str) -> UserError:
    if first[:1] in (b"{", b"["):
        folder = Path(name).parent
        dataset = f", or {folder} for the dataset" if (folder / "orfs.arrow").is_file() else ""
        return UserError(f"{name}: JSON, not sequences; name a file of sequences{dataset}")
    shown = re.split(rb"[\r\n]", first)[0].decode("ascii", "backslashreplace").strip()
    return UserError(
        f"{name}: neither FASTA nor FASTQ, SAM, BAM or CRAM: the first record should begin with '>' or '@', found"
        f" '{shown}'"
    )


def _format_of(text: bytes) -> str:
    if is_sam(text):
        return "sam"
    for magic, name in ((b">", "fasta"), (b"@", "fastq"), (b"BAM\1", "bam"), (b"CRAM", "cram"), (b"", "unknown")):
        if text.startswith(magic):
            return name if text else "empty"
    raise AssertionError("the last pattern matches everything")


def _skip_leading_comments(text: bytes, stream: Text, facts: InputFacts) -> bytes:
    """Drop blank lines and ``;`` or ``#`` comment lines before the first record."""
    while True:
        end = 0
        while (found := _LEADING_COMMENTS.match(text, end)) and found.end() > end:
            end = found.end()
        facts.first_line += len(_LINE_END.findall(text, 0, end))
        text = text[end:]
        if text and text[:1] not in b";#":
            return text + stream.read_fully(_FORMAT_BYTES - len(text))
        more = stream.read(BLOCK_BYTES)
        if not more:
            return b""
        text = text[:1] + more  # the first letter of an unfinished comment line is enough


def _read_fasta(stream: Text, facts: InputFacts) -> Iterator[RecordBlock]:
    """Parse FASTA by the rules of Biopython 1.88: blanks, tabs and line ends are removed, all other letters stay."""
    for headers, letters, lengths, first_odd in whole_records(stream.blocks(BLOCK_BYTES), facts.first_line):
        if b" " in letters or b"\t" in letters:
            letters, lengths = _without_blanks(letters, lengths)
        facts.letters.first = first_odd
        block = record_block(headers, letters, lengths, may_have_odd_letters=first_odd is not None)
        if not letters.isascii():
            raise ValueError(f"{_name_first_odd(block)} holds bytes that are no letters")
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


def _read_fastq(stream: Text, filler: BlockFiller, first_line: int) -> Iterator[RecordBlock]:
    for entry in fastq.read_entries(stream, first_line, BLOCK_BYTES):
        if block := filler.add(entry.name.replace("\r", " "), entry.sequence):
            yield block
