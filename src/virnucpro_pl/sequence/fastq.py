"""Reader of FASTQ by dnaio: four lines for each record, blank lines at the end only."""

import io
import re
from collections.abc import Iterator

import dnaio

from virnucpro_pl.sequence.blocks import DamagedRecordError
from virnucpro_pl.sequence.streams import Text

_PLACE = re.compile(r"^Error in FASTQ file at (?:line \d+|unknown line): ")
ADVICE = "fix or copy it again"
_HINTS = {
    "expected to start with '+'": (
        "a record must have four lines; where sequences are wrapped over several, unwrap them (`seqtk seq` does)"
    ),
    "descriptions don't match": "remove the second ones: `awk 'NR % 4 == 3 {$0 = \"+\"} 1'`",
}
_BLANK = b" \t\r\n"


def read_entries(stream: Text, first_line: int, buffer_bytes: int) -> Iterator[dnaio.SequenceRecord]:
    """Yield the reads of a FASTQ file.

    Args:
        stream: the text.
        first_line: number of the first line.
        buffer_bytes: bytes of each read.

    Raises:
        UserError: a line is too long.
        DamagedRecordError: a record is damaged; the message names the line.
    """
    stream.limit_lines()
    try:
        yield from dnaio.FastqReader(io.BufferedReader(_WithoutBlankEnd(stream), buffer_bytes))
    except dnaio.FileFormatError as error:
        reason = _PLACE.sub("", " ".join(str(error).split()))
        place = "" if error.line is None else f"line {first_line + error.line:,}: "
        hint = next((hint for sign, hint in _HINTS.items() if sign in reason), ADVICE)
        raise DamagedRecordError(f"{place}{reason.rstrip('.')}", hint) from error


class _WithoutBlankEnd(io.RawIOBase):
    """Stream of FASTQ without the blank lines after its last record.

    The empty line of qualities of a last read without letters stays.
    """

    def __init__(self, stream: Text):
        self._stream = stream
        self._ready = b""
        self._blank = b""  # may be at the end of the file
        self._num_lines = 0  # before the blank lines

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        while not self._ready:
            block = self._stream.read(len(buffer))
            if not block:
                self._ready, self._blank = self._needed_end(), b""
                if not self._ready:
                    return 0
            elif content := block.rstrip(_BLANK):
                self._ready = self._blank + content
                self._num_lines += self._ready.count(b"\n")
                self._blank = block[len(content) :]
            else:
                self._blank += block
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _needed_end(self) -> bytes:
        """Return the line ends that complete the last record."""
        missing = -self._num_lines % 4
        return b"".join(self._blank.splitlines(keepends=True)[:missing])
