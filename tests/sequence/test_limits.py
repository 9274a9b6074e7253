"""What no sequence file needs is refused in one line, and memory stays bounded on the way there."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import CHECKOUT
from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence import blocks, fasta, streams
from virnucpro_pl.sequence import records as records_module
from virnucpro_pl.sequence.records import read_records

SCRIPT = CHECKOUT / "benchmarks" / "hostile_input.py"
SCALE = 0.01  # the endless ones have 100 MB
LINES = {"FASTQ, endless letters", "FASTQ, endless header", "SAM, endless line"}
"""A line of 64 MiB is read in buffers of twice the size each time; nothing else is held at all."""
AT_SMALL_SCALE = [
    "xz that asks for 1 GiB",
    "zstd that asks for 2 GiB",
    "FASTA, endless header",
    "FASTA, endless comment",
    "FASTQ, endless letters",
    "SAM, endless header",
    "SAM, endless line",
    "BAM, header of 2 GiB",
    "BAM, record of 2 GiB",
    "FASTA, 10 million empty records",
    "FASTQ, 10 million empty records",
]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is not here: run on Linux")
def test_bombs_and_endless_lines_end_in_bounded_memory() -> None:
    """benchmarks/hostile_input.py runs the same cases at full size."""
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import hostile_input as script;"
        "print(json.dumps([(n, c.outcome, t) for n, c, t in script.run_cases(float(sys.argv[2]), sys.argv[3:])]))"
    )
    command = [sys.executable, "-c", code, str(SCRIPT.parent), str(SCALE), *AT_SMALL_SCALE]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = json.loads(result.stdout)
    assert [name for name, _, _ in measured] == AT_SMALL_SCALE
    for name, outcome, told in measured:
        assert told["outcome"] == outcome, f"{name}: {told}"
        assert told["peak MB"] < (450 if name in LINES else 180), f"{name}: {told}"


def write(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "input"
    path.write_bytes(content)
    return str(path)


def outcome(path: str) -> int | str:
    try:
        return sum(len(block.names) for block in read_records(path))
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return str(error)


@pytest.mark.parametrize("block_bytes", [1, 3])
def test_records_and_headers_up_to_the_limit_are_read(tmp_path: Path, monkeypatch, block_bytes: int) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", block_bytes)
    for module in (fasta, blocks):
        monkeypatch.setattr(module, "MAX_HEADER_BYTES", 9)
    monkeypatch.setattr(fasta, "MAX_RECORD_LETTERS", 8)
    assert outcome(write(tmp_path, b">12345678\nACGT\nACGT\n>b\nACGT\n>c\nACGT\n>d\nACGTACGT\n")) == 4
    assert "a record of more than 8 letters" in str(outcome(write(tmp_path, b">a\nAC\n>b\nACGT\nACGTA\n>c\nA\n")))
    assert "a record of more than 8 letters" in str(outcome(write(tmp_path, b">a\nACGTACGTA")))
    assert outcome(write(tmp_path, b"@123456789\nACGTACGTACGT\n+\nIIIIIIIIIIII\n")) == 1
    assert "a header of more than" in str(outcome(write(tmp_path, b"@1234567890\nACGT\n+\nIIII\n")))


def test_a_header_is_refused_wherever_blocks_end(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fasta, "MAX_HEADER_BYTES", 20)
    for block_bytes in (1, 7, 20):
        monkeypatch.setattr(records_module, "BLOCK_BYTES", block_bytes)
        assert outcome(write(tmp_path, b">a\nACGT\n>" + b"x" * 19 + b"\nAC\n")) == 2
        assert "a header of more than" in str(outcome(write(tmp_path, b">a\nACGT\n>" + b"x" * 20 + b"\nAC\n")))


def test_lines_of_letters_are_no_headers_however_long(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fasta, "MAX_HEADER_BYTES", 4)
    for block_bytes in (1, 3, 7, 1 << 20):
        monkeypatch.setattr(records_module, "BLOCK_BYTES", block_bytes)
        assert "line 2: '>' within" in outcome(write(tmp_path, b">a\nA" + b">" * 50 + b"\n>b\nA\n"))


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_a_line_is_refused_before_it_is_held_whole(monkeypatch, piece: int) -> None:
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 100)

    def lines_read(*lengths: int) -> int:
        text = streams.Text(io.BytesIO(b"".join(b"x" * length + b"\n" for length in lengths)), "none", "input")
        text.limit_lines()
        return b"".join(text.blocks(piece)).count(b"\n")

    assert lines_read(100, 3, 100, 0, 99) == 5
    for lengths in ((101,), (3, 101), (100, 5, 0, 300)):
        with pytest.raises(UserError, match="input: a line of more than"):
            lines_read(*lengths)
