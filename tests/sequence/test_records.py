"""Reading against Biopython, and what happens to files that are not as they should be."""

import bz2
import gzip
import io
import itertools
import lzma
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from Bio import BiopythonDeprecationWarning, SeqIO
from hypothesis import given, settings
from hypothesis import strategies as st
from xopen import xopen

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence import records as records_module
from virnucpro_pl.sequence.records import InputFacts, read_records, resolve_inputs
from virnucpro_pl.sequence.streams import Text

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Record = tuple[str, str, str]
TWO = b">a first\nACGT\nAC\n>b\nGG\n"
FASTQ = b"@a first\nACGT\n+\nIIII\n@b\nGG\n+\nII\n"


def read(path: Path | str, facts: InputFacts | None = None) -> list[Record]:
    found = []
    for block in read_records(str(path), facts):
        assert len(block.names) == len(block.descriptions) == len(block.lengths)
        assert block.lengths.sum() == len(block.letters)
        start = 0
        for name, description, length in zip(block.names, block.descriptions, block.lengths.tolist(), strict=True):
            found.append((name, description, block.letters[start : start + length].decode()))
            start += length
    return found


def read_with_biopython(path: Path) -> list[Record]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BiopythonDeprecationWarning)
        with path.open(encoding="utf-8") as stream:
            return [(record.id, record.description, str(record.seq)) for record in SeqIO.parse(stream, "fasta")]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "input"
        path.write_bytes(content)
        return path

    return write


line_end = st.sampled_from(["\n", "\r\n", "\r"])
header = st.text(st.sampled_from("ab|>;_ \té\u2003\x1c"), max_size=8)
lines = st.lists(st.text(st.sampled_from("ACGTNacgt-*;# \t"), max_size=12), max_size=4)


@settings(deadline=None)
@given(st.lists(st.tuples(header, lines), min_size=1, max_size=6), line_end, st.booleans(), st.integers(1, 40))
def test_fasta_is_read_as_biopython_reads_it(tmp_path_factory, entries, end, ends_open, block_bytes) -> None:
    text = end.join(line for header, lines in entries for line in (f">{header}", *lines)) + ("" if ends_open else end)
    path = tmp_path_factory.mktemp("fasta") / "input.fa"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "BLOCK_BYTES", block_bytes)
        assert read(path) == read_with_biopython(path)


@pytest.mark.parametrize("block_bytes", range(1, 30))
def test_records_do_not_depend_on_where_blocks_end(write, monkeypatch, block_bytes: int) -> None:
    content = b">a x\r\nAC\r\nGT\r\n\r\n>b > c\rTT\r>\n\n>d\n\n>e"
    monkeypatch.setattr(records_module, "BLOCK_BYTES", block_bytes)
    expected = [("a", "a x", "ACGT"), ("b", "b > c", "TT"), ("", "", ""), ("d", "d", ""), ("e", "e", "")]
    assert read(write(content)) == expected


def test_records_that_fill_blocks_exactly_are_not_gathered(write, monkeypatch) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 8)
    assert [block.names for block in read_records(str(write(b">a\nACGT\n" * 5)))] == [["a"]] * 5


def test_recorded_inputs_are_read_as_biopython_reads_them(golden, mini) -> None:
    compared = 0
    for path in [*sorted((golden / "inputs").iterdir()), *sorted((mini / "inputs").iterdir())]:
        try:
            expected = read_with_biopython(path)
        except ValueError:  # what Biopython refuses is not its reading to compare with
            continue
        if all(sequence.isascii() for _, _, sequence in expected):
            assert read(path) == expected, path.name
            compared += 1
    assert compared > 30


@pytest.mark.parametrize(
    "start", [b"\xef\xbb\xbf", b"\n\r\n \t\n", b"; a comment\n# another\r\n\n", b"#" * 100 + b"\n"]
)
def test_what_comes_before_the_first_record_is_skipped(write, monkeypatch, start: bytes) -> None:
    for block_bytes in (4, 7, 1000):
        monkeypatch.setattr(records_module, "BLOCK_BYTES", block_bytes)
        assert read(write(start + TWO)) == [("a", "a first", "ACGTAC"), ("b", "b", "GG")]
    assert read(write(start + FASTQ)) == [("a", "a first", "ACGT"), ("b", "b", "GG")]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"; only a comment", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_a_file_without_records_is_empty(write, content: bytes) -> None:
    assert read(write(content)) == []


def zstd_compress(data: bytes) -> bytes:
    packed = io.BytesIO()
    with xopen(packed, "wb", format="zst", threads=0) as stream:
        stream.write(data)
    return packed.getvalue()


SKIPPABLE_FRAME = b"\x50\x2a\x4d\x18\4\0\0\0pzst"  # pzstd begins with one
BGZIP_MEMBER_START = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0"


def bgzip_compress(data: bytes) -> bytes:
    """One member as ``bgzip`` writes it: a gzip member that tells its length."""
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(data) + deflate.flush()
    size = len(BGZIP_MEMBER_START) + 2 + len(body) + 8
    return BGZIP_MEMBER_START + struct.pack("<H", size - 1) + body + struct.pack("<II", zlib.crc32(data), len(data))


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bgzip": bgzip_compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd_compress,
    "pzstd": lambda data: SKIPPABLE_FRAME + zstd_compress(data),
    "padded xz": lambda data: lzma.compress(data) + bytes(8),
}


class _Dripping(io.BytesIO):
    """A pipe whose writer gives a byte at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(1, size) if size is not None and size >= 0 else size)


@pytest.mark.parametrize("source", ["file", "standard input", "slow pipe"])
@pytest.mark.parametrize("compression", COMPRESSORS)
def test_compression_is_told_by_content(write, monkeypatch, compression: str, source: str) -> None:
    """Also of several members, streams or frames end to end, cut within a record."""
    compress = COMPRESSORS[compression]
    path = write(compress(TWO[:9]) + compress(TWO[9:]))
    if source != "file":
        data = (_Dripping if source == "slow pipe" else io.BytesIO)(path.read_bytes())
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(data))
    facts = InputFacts()
    assert read(path if source == "file" else "-", facts) == [("a", "a first", "ACGTAC"), ("b", "b", "GG")]
    assert facts.digest.hexdigest() == sha256(path.read_bytes()).hexdigest()
    told = {"pzstd": "zstd", "padded xz": "xz"}.get(compression, compression)
    assert (facts.format, facts.compression) == ("fasta", told)


def xz_of(memory_log: int) -> bytes:
    return lzma.compress(TWO, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << memory_log}])


def zstd_of(memory_log: int) -> bytes:
    """Without its length, which would tell that so much memory is not needed."""
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: memory_log})
    return compressor.compress(TWO) + compressor.flush()


@pytest.mark.parametrize(("pack", "most"), [(xz_of, 26), (zstd_of, 28)])  # xz -9 has 26, and needs more than that
def test_what_takes_much_memory_to_unpack_is_refused(write, pack: Callable[[int], bytes], most: int) -> None:
    assert len(read(write(pack(most)))) == 2
    for memory_log in (29, 30):
        with pytest.raises(UserError, match="needs more than 256 MiB of memory; compress it again, with"):
            read(write(pack(memory_log)))


@pytest.mark.parametrize("error", [MemoryError, AttributeError, AssertionError, NameError, KeyError])
@pytest.mark.parametrize("compression", ["none", "gzip", "bz2", "xz", "zstd"])
def test_running_out_of_memory_and_bugs_are_not_called_a_damaged_file(error: type[Exception], compression: str) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise error

        readinto = read

    with pytest.raises(error):
        Text(Failing(), compression, "input").read()


@pytest.mark.parametrize(
    ("ending", "damage"),
    [*itertools.product(["gz", "bz2", "xz", "zst"], ["cut", "bits"])],
)
def test_damaged_compressed_files_are_refused(tmp_path: Path, ending: str, damage: str) -> None:
    path = tmp_path / f"reads.{ending}"
    with xopen(path, "wb", threads=0) as stream:
        stream.write(b"".join(b">%d\n%s\n" % (i, sha256(b"%d" % i).hexdigest().encode()) for i in range(3000)))
    whole = path.read_bytes()
    place = 4 if (ending, damage) == ("zst", "bits") else len(whole) // 2  # zstd has no checksum unless asked for one
    path.write_bytes(whole[:place] + (b"" if damage == "cut" else b"\xff" * 99 + whole[place + 99 :]))
    with pytest.raises(UserError, match=rf"reads\.{ending}: .*copy the file again$") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_the_digest_is_that_of_the_whole_file(write) -> None:
    path = write(bz2.compress(TWO) + b"\n" * 3_000_000)
    facts = InputFacts()
    assert sum(len(block.names) for block in read_records(str(path), facts)) == 2
    assert facts.digest.hexdigest() == sha256(path.read_bytes()).hexdigest()


def test_a_fastq_file_cut_short_is_not_called_damaged_fastq(write, monkeypatch) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 100)
    with pytest.raises(UserError, match=r"input: the compressed data is truncated; copy the file again$"):
        read(write(gzip.compress(FASTQ * 1000, mtime=0)[:-30]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ACGT\n>a\nACGT\n", "neither FASTA nor FASTQ.*found 'ACGT'$"),
        (b"\x7fELF\x02\x01\x00\nrest", "neither FASTA nor FASTQ"),
        (b"\xff\xfe>\x00a\x00\n", "neither FASTA nor FASTQ"),
        (b">a\nAC\n>b c\nAC\xc2\xa0GT\n", "sequence of 'b' holds bytes that are no letters"),
        (b"@a\nACGT\n+\nII\n", "damaged FASTQ"),
        (b"@a\nACGT\n+\n", "damaged FASTQ"),
        (b"@a\nACGT\nIIII\n@b\n", "damaged FASTQ"),
        (b"@a\nAC\xffT\n+\nIIII\n", "damaged FASTQ"),
    ],
)
def test_what_is_no_sequence_file_is_refused_in_one_line(write, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(write(content))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(write(content)))


@pytest.mark.parametrize("content", [FASTQ, FASTQ.replace(b"\n", b"\r\n"), FASTQ[:-1]])
def test_fastq_is_read(write, monkeypatch, content: bytes) -> None:
    for block_bytes in (1, 1000):
        monkeypatch.setattr(records_module, "BLOCK_BYTES", block_bytes)
        assert read(write(content)) == [("a", "a first", "ACGT"), ("b", "b", "GG")]


def test_headers_that_are_not_utf8_keep_their_bytes_visible(write) -> None:
    assert read(write(b">caf\xe9 x\nAC\n>caf\xc3\xa9\nGT\n")) == [
        ("caf\\xe9", "caf\\xe9 x", "AC"),
        ("café", "café", "GT"),
    ]


def test_standard_input_stays_open(monkeypatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(gzip.compress(TWO, mtime=0)))
    monkeypatch.setattr("sys.stdin", stdin)
    assert read("-") == [("a", "a first", "ACGTAC"), ("b", "b", "GG")]
    assert not stdin.closed


def test_a_sequence_on_one_long_line(write, monkeypatch) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 1 << 10)
    assert read(write(b">long\n" + b"ACGT" * 500_000 + b"\n>b\nGG\n")) == [
        ("long", "long", "ACGT" * 500_000),
        ("b", "b", "GG"),
    ]


def test_paths_and_patterns_are_resolved(tmp_path: Path) -> None:
    for name in ("b.fa", "a.fa", "odd [1].fa"):
        (tmp_path / name).write_bytes(TWO)
    assert resolve_inputs(tmp_path / "a.fa") == [str(tmp_path / "a.fa")]
    assert resolve_inputs([f"{tmp_path}/?.fa", "-"]) == [str(tmp_path / "a.fa"), str(tmp_path / "b.fa"), "-"]
    assert resolve_inputs(str(tmp_path / "odd [1].fa")) == [str(tmp_path / "odd [1].fa")]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "no file given"),
        ("", "one of the paths is empty"),
        ("missing.fa", "missing.fa does not exist; check the path"),
        ("*.bam", r"\*.bam does not exist"),
        (".", "is a folder; give the files in it"),
        (["-", "-"], "given only once"),
    ],
)
def test_unusable_paths_are_refused(monkeypatch, tmp_path: Path, inputs, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        resolve_inputs(inputs)


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone.fa: cannot be opened: No such file or directory; check"):
        read(tmp_path / "gone.fa")


@pytest.mark.parametrize(
    ("content", "change"),
    [
        (b">a\nACGT\n" * 50, lambda path: path.write_bytes(b">a\nACGA\n" * 50)),
        (b">a\nACGT\n" * 50, lambda path: path.write_bytes(b">a\nACGT\n" * 51)),
        (FASTQ * 50, lambda path: os.truncate(path, 77)),  # which alone would be called damaged
    ],
    ids=["written again", "grown", "cut"],
)
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch, content, change) -> None:
    """F1: what was read is neither the one file nor the other."""
    path = tmp_path / "input"
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 64)
    blocks = read_records(str(path))
    next(blocks)
    change(path)
    with pytest.raises(UserError, match=r"input: was changed while it was read; start again"):
        list(blocks)


def test_a_file_replaced_by_name_while_it_is_read_is_read_as_it_was(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "input"
    path.write_bytes(b">a\nACGT\n" * 50)
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 64)
    blocks = read_records(str(path))
    found = [*next(blocks).names]
    (tmp_path / "other").write_bytes(TWO)
    (tmp_path / "other").replace(path)
    found += [name for block in blocks for name in block.names]
    assert found == ["a"] * 50


def test_an_input_that_cannot_be_read_is_named_itself(monkeypatch) -> None:
    """F11: not the store that is made of it."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Failing()))
    with pytest.raises(UserError, match=r"^standard input: cannot be read: Input/output error; check the file"):
        read("-")


@pytest.mark.parametrize(("name", "reason"), [("x" * 300, "File name too long"), ("nul\0", "null byte")])
def test_names_that_no_file_can_have_are_refused_as_inputs(name: str, reason: str) -> None:
    """F11: the input is named, as it was given."""
    with pytest.raises(UserError, match=f"^input: {name}.*{reason}; check the path"):
        resolve_inputs(name)
