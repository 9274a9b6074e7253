"""Whatever the bytes: records or one line, never another exception; and what writes them reads them back."""

import gzip
import io
import lzma
from functools import partial

import dnaio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence import records as records_module
from virnucpro_pl.sequence.records import InputFacts, read_records

BOUNDED = settings(deadline=None, max_examples=150, derandomize=True)
SAM = b"@HD\tVN:1.6\nr\t77\t*\t0\t0\t*\t*\t0\t0\tACGT\tIIII\nr\t141\t*\t0\t0\t*\t*\t0\t0\t*\t*\n"
BGZIPPED_BAM = bytes.fromhex(
    "1f8b08040000000000ff06004243020020007372f465000000007e9a4a08000000"
    "1f8b08040000000000ff0600424302001b0003000000000000000000"
)
SEEDS = [
    b">a first\nACGT NN\n>b\n\n>c",
    b"@a\nACGT\n+\nIIII\n@b\nG\n+\nI\n",
    SAM,
    SAM[11:],
    b"BAM\1" + bytes(8) + bytes([36, 0, 0, 0]) + b"\xff" * 8 + bytes([2, 0, 0, 0, 0, 0, 4, 0]) + bytes(16) + b"r\0",
    b"CRAM\3\0" + bytes(20),
    gzip.compress(b">a\nACGT\n", mtime=0),
    lzma.compress(b">a\nACGT\n"),
    BGZIPPED_BAM,
]
block_sizes = st.sampled_from([1, 7, 64, 1 << 20])


def read(content: bytes, block_bytes: int, facts: InputFacts | None = None) -> list[tuple[str, str]] | None:
    """The records of the bytes on standard input; None if they are refused."""
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "BLOCK_BYTES", block_bytes)
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        found = []
        try:
            for block in read_records("-", facts):
                assert len(block.names) == len(block.descriptions) == len(block.lengths) > 0
                ends = block.lengths.cumsum().tolist()
                assert ends[-1] == len(block.letters)
                letters = [block.letters[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]
                found += zip(block.names, letters, strict=True)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
            return None
        return found


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A seed of which pieces are replaced, repeated, or cut off."""
    content = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 9)))
        piece = draw(
            st.binary(max_size=5) | st.sampled_from([b"\n", b"\t", b"\xff" * 4, b">", b"@", content[start:end]])
        )
        content = content[:start] + piece + content[end:]
    return content


@BOUNDED
@given(damaged(), block_sizes)
@example(b"", 1)
@example(b"@", 1)
@example(b"BAM\1", 1)
@example(b"\x1f\x8b", 1)
def test_damaged_files_end_in_records_or_one_line(content: bytes, block_bytes: int) -> None:
    assert read(content, block_bytes) == read(content, 1 << 20)


@BOUNDED
@given(st.binary(max_size=300), st.sampled_from([b"", b">", b"@", b"@HD\t", b"BAM\1", b"CRAM", b"\x1f\x8b\x08"]))
def test_noise_ends_in_records_or_one_line(noise: bytes, start: bytes) -> None:
    read(start + noise, 64)


headers = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
reads = st.lists(st.tuples(headers, st.text("ACGTNacgtn.-", max_size=30)), min_size=1, max_size=9)


@BOUNDED
@given(reads, block_sizes, st.sampled_from([bytes, partial(gzip.compress, mtime=0), lzma.compress]))
def test_fastq_is_read_as_dnaio_and_biopython_read_it(reads, block_bytes: int, compress) -> None:
    from Bio.SeqIO.QualityIO import FastqGeneralIterator

    text = "".join(f"@{header}\n{letters}\n+\n{'I' * len(letters)}\n" for header, letters in reads)
    facts = InputFacts()
    found = read(compress(text.encode()), block_bytes, facts)
    assert facts.format == "fastq"
    by_dnaio = [(entry.name, entry.sequence) for entry in dnaio.FastqReader(io.BytesIO(text.encode()))]
    assert found == [((header.split() or [""])[0], letters) for header, letters in by_dnaio]
    if all(letters for _, letters in reads):  # Biopython takes a record without letters for a damaged one
        by_biopython = [(title, letters) for title, letters, _ in FastqGeneralIterator(io.StringIO(text))]
        assert [(header.rstrip(), letters) for header, letters in by_dnaio] == [
            (title.rstrip(), letters) for title, letters in by_biopython
        ]
