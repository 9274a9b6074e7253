"""F11, F12: FASTQ at its end, wrapped, and with second headers, against Biopython and a plain reference."""

import gzip
import io

import pytest
from Bio.SeqIO.QualityIO import FastqGeneralIterator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence import records as records_module
from virnucpro_pl.sequence.records import read_records

reads = st.lists(st.text("ACGTN", max_size=12), max_size=6)
blank_end = st.text(" \t\r\n", max_size=8)


def read(content: bytes, block_bytes: int = 1 << 20) -> list[tuple[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "BLOCK_BYTES", block_bytes)
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        found = []
        for block in read_records("-"):
            ends = block.lengths.cumsum().tolist()
            sequences = [block.letters[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]
            found += zip(block.names, sequences, strict=True)
        return found


@settings(deadline=None, max_examples=150, derandomize=True)
@given(reads, st.sampled_from(["\n", "\r\n"]), blank_end, st.integers(1, 40))
@example(["AC", ""], "\n", "", 1)  # the empty line of qualities is no blank line at the end
@example(["AC", ""], "\n", "\n\n", 3)
def test_blank_lines_at_the_end_are_no_records(sequences: list[str], end: str, blank: str, block_bytes: int) -> None:
    """F11: any number of them, with any line end, also after a read without letters."""
    text = "".join(f"@r{i}{end}{s}{end}+{end}{'I' * len(s)}{end}" for i, s in enumerate(sequences))
    expected = [(f"r{i}", s) for i, s in enumerate(sequences)]
    assert read((text + blank).encode(), block_bytes) == expected
    if all(sequences):
        by_biopython = FastqGeneralIterator(io.StringIO(text.replace(end, "\n")))
        assert expected == [(title, letters) for title, letters, _ in by_biopython]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_blank_line_between_records_is_refused_with_its_line(pack) -> None:
    content = pack(b"\n@a\nAC\n+\nII\n\n@b\nAC\n+\nII\n")
    with pytest.raises(UserError, match=r"damaged FASTQ: line 6: .*; fix or copy it again$"):
        read(content)


@pytest.mark.parametrize(
    "content",
    [
        b"@one\nACGT\nACG\n+\nIIII\nIII\n",
        b"@one\r\nACGT\r\nACG\r\n+\r\nIIII\r\nIII\r\n",
        b"@short\nAC\n+\nII\n@one\nACGT\nACG\n+\nIIII\nIII\n",
        b"@one\nACGT\nACGT\nAC\n+one\nIIII\nIIII\nII\n",
    ],
)
def test_wrapped_fastq_is_refused_and_how_to_unwrap_it_told(content: bytes) -> None:
    """F12."""
    with pytest.raises(UserError, match=r"line [37]: .*four lines.*unwrap them \(`seqtk seq` does\)$"):
        read(content)


def test_wrapped_sequences_in_one_line_of_qualities_are_refused_too() -> None:
    with pytest.raises(UserError, match="four lines"):
        read(b"@one\nACGT\nACG\n+\nIIIIIII\n")


@pytest.mark.parametrize("second", [b"", b"one first"])
def test_a_second_header_that_agrees_is_read(second: bytes) -> None:
    assert read(b"@one first\nACGT\n+" + second + b"\nIIII\n") == [("one", "ACGT")]


@pytest.mark.parametrize("second", [b"two", b"one", b"RUN1.1 one length=180"])
def test_a_second_header_that_differs_is_refused_and_how_to_remove_it_told(second: bytes) -> None:
    """F12: records may have got out of step, which their lengths need not show."""
    with pytest.raises(UserError, match=r"line 3: .*don't match.*remove the second ones: `awk 'NR % 4 == 3"):
        read(b"@one first\nACGT\n+" + second + b"\nIIII\n")
