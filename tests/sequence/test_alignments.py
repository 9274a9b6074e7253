"""SAM, BAM and CRAM against pysam and by hand; what is damaged or hostile is refused."""

import bz2
import gzip
import http.server
import io
import lzma
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence import alignments
from virnucpro_pl.sequence import records as records_module
from virnucpro_pl.sequence.records import InputFacts, read_records

Alignment = tuple[str, int, str | None]
UNALIGNED = {"HD": {"VN": "1.6"}}
NOISE = random.Random(0).randbytes(1 << 20)
MODES = {"sam": "w", "bam": "wb", "cram": "wc"}
# R9, with what `samtools fasta` 1.24 gives for each.
ODD: list[Alignment] = [
    ("plain", 4, "ACGTN"),
    ("no letters", 4, None),
    ("first", 77, "AAAC"),
    ("first", 141, "CCCA"),
    ("again/1", 77, "AG"),
    ("secondary", 0x100 | 4, "TTTT"),
    ("supplementary", 0x800 | 4, "TTTT"),
    ("both", 0x900 | 4, "TTTT"),
    ("bad quality", 0x200 | 4, "GGC"),
    ("duplicate", 0x400 | 4, "GGA"),
    ("reverse", 0x10 | 4, "AACRYKMBVDHSWN"),
    ("neither end", 0x1 | 4, "CT"),
    ("both ends", 0x1 | 0xC0 | 4, "CT"),
]
ODD = [(name.replace(" ", "_"), flag, sequence) for name, flag, sequence in ODD]
EXPECTED = [
    ("plain", "ACGTN"),
    ("no_letters", ""),
    ("first/1", "AAAC"),
    ("first/2", "CCCA"),
    ("again/1", "AG"),
    ("bad_quality", "GGC"),
    ("duplicate", "GGA"),
    ("reverse", "NWSDHBVKMRYGTT"),
    ("neither_end", "CT"),
    ("both_ends", "CT"),
]


def write(path: Path, reads: list[Alignment], kind: str = "bam", header: dict | None = None) -> Path:
    with pysam.AlignmentFile(str(path), MODES[kind], header=header or UNALIGNED) as file:
        for name, flag, sequence in reads:
            read = pysam.AlignedSegment(file.header)
            read.query_name, read.flag, read.query_sequence = name, flag, sequence
            file.write(read)
    return path


def read(path: Path | str, facts: InputFacts | None = None) -> list[tuple[str, str]]:
    found = []
    for block in read_records(str(path), facts):
        assert block.names == block.descriptions
        ends = block.lengths.cumsum().tolist()
        found += [
            (name, block.letters[a:b].decode()) for name, a, b in zip(block.names, [0, *ends], ends, strict=False)
        ]
    return found


@pytest.mark.parametrize("kind", MODES)
def test_reads_are_taken_as_samtools_fasta_takes_them(tmp_path: Path, kind: str) -> None:
    facts = InputFacts()
    assert read(write(tmp_path / "reads", ODD, kind), facts) == EXPECTED
    assert facts.format == kind
    assert facts.skipped == {"secondary": 2, "supplementary": 1}


def samtools(command: str, *arguments: object) -> bytes:
    """What pysam's samtools writes to standard output, which it takes from the whole process."""
    code = "import sys, pysam; getattr(pysam.samtools, sys.argv[1])(*sys.argv[2:], catch_stdout=False)"
    line = [sys.executable, "-c", code, command, *map(str, arguments)]
    return subprocess.run(line, check=True, capture_output=True).stdout


@pytest.mark.parametrize("kind", MODES)
def test_our_rules_are_those_of_samtools(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "reads", ODD, kind)
    lines = samtools("fasta", path).decode().splitlines()
    by_samtools = [(name[1:], letters) for name, letters in zip(lines[::2], lines[1::2], strict=True)]
    # Here a name that has its number keeps it.
    assert read(path) == [("again/1" if name == "again/1/1" else name, letters) for name, letters in by_samtools]


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bgzip": lambda data: data,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", ["sam", "bam"])
@pytest.mark.parametrize("block_bytes", [7, 1 << 20])
def test_any_compression_and_any_block(tmp_path: Path, monkeypatch, kind: str, compression: str, block_bytes) -> None:
    path = write(tmp_path / "reads", ODD, kind)
    if kind == "bam" and compression != "bgzip":
        path.write_bytes(COMPRESSIONS[compression](gzip.decompress(path.read_bytes())))
    elif compression == "bgzip" and kind == "sam":
        pysam.tabix_compress(str(path), str(tmp_path / "bgzip"))
        path = tmp_path / "bgzip"
    else:
        path.write_bytes(COMPRESSIONS[compression](path.read_bytes()))
    monkeypatch.setattr(records_module, "BLOCK_BYTES", block_bytes)
    facts = InputFacts()
    assert read(path, facts) == EXPECTED
    assert (facts.format, facts.compression) == (kind, compression)


@pytest.mark.parametrize("kind", MODES)
def test_standard_input_and_the_digest(tmp_path: Path, monkeypatch, kind: str) -> None:
    data = write(tmp_path / "reads", ODD, kind).read_bytes()
    stdin = io.TextIOWrapper(io.BytesIO(data))
    monkeypatch.setattr("sys.stdin", stdin)
    facts, of_file = InputFacts(), InputFacts()
    assert read("-", facts) == read(tmp_path / "reads", of_file) == EXPECTED
    assert facts.digest.hexdigest() == of_file.digest.hexdigest()
    assert not stdin.closed


read_names = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="@"), min_size=1, max_size=9)
one_read = st.tuples(read_names, st.integers(0, 0xFFF), st.none() | st.text("ACGTNRYSWKMBDHV", min_size=1, max_size=40))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(one_read, max_size=8), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_sam_with_and_without_header_holds_what_pysam_reads_in_it(tmp_path_factory, reads, has_header, end) -> None:
    folder = tmp_path_factory.mktemp("sam")
    path = write(folder / "reads.sam", reads, "sam")
    with pysam.AlignmentFile(str(path), check_sq=False) as file:
        kept = [read for read in file.fetch(until_eof=True) if not read.flag & 0x900]
        expected = [len(read.query_sequence or "") for read in kept]
    lines = path.read_text().splitlines()
    path.write_text(end.join([*(line for line in lines if has_header or not line.startswith("@")), ""]), newline="")
    bam = write(folder / "reads.bam", reads)
    found = read(path)
    assert [len(letters) for _, letters in found] == expected
    assert found == read(bam)


def test_alignments_without_header_are_read(tmp_path: Path) -> None:
    """htslib refuses them: they name a reference that no header tells of."""
    path = tmp_path / "reads"
    path.write_text("r1\t16\tchr1\t7\t60\t4M\t=\t9\t0\tAACG\tIIII\tNM:i:0\nr2\t4\t*\t0\t0\t*\t*\t0\t0\t*\t*\n")
    assert read(path) == [("r1", "CGTT"), ("r2", "")]


@pytest.mark.parametrize(
    ("text", "is_sam"),
    [
        ("@HD\tVN:1.6\tSO:unsorted\n", True),
        ("@CO\tany words\n", True),
        ("@SQ\tSN:chr1\tLN:5\n@RG\tID:1\n", True),
        ("@r1\nACGT\n+\nIIII\n", False),
        ("@HD\nACGT\n+\nIIII\n", False),
        ("@HD\tVN:1.6\nACGT\n+\nIIII\n", False),
        ("@HD\tVN:1.6\r\nACGT\r\n+\r\nIIII\r\n", False),
        ("@SQ SN:chr1\nACGT\n+\nIIII\n", False),
        ("+r1\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\t*\n", True),
        (";r1\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\t*\n", True),
        ("@HD\tVN:1.6\n@CO\tx\n+r1\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\t*\n", True),
        ("chr1\t4\tblue\n", False),
    ],
)
def test_sam_is_told_from_fastq_by_its_first_lines(text: str, is_sam: bool) -> None:
    assert alignments.is_sam(text.encode()) == is_sam


def test_empty_files_hold_no_records(tmp_path: Path) -> None:
    for kind in MODES:
        assert read(write(tmp_path / kind, [], kind)) == []


@pytest.fixture
def many(tmp_path: Path) -> Path:
    reads: list[Alignment] = [(f"r{i}", 4, f"{i:b}".replace("0", "A").replace("1", "C") * 9) for i in range(9000)]
    return write(tmp_path / "reads.bam", reads)


def raw(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes())


DAMAGE: dict[str, tuple[Callable[[bytes, bytes], bytes], str]] = {
    "cut in a block": (lambda bam, raw: bam[: len(bam) // 2], "truncated"),
    "no end mark": (lambda bam, raw: bam[:-28], "the end mark of a BAM file is missing"),
    "cut uncompressed": (lambda bam, raw: raw[:-3], "cannot be decoded"),
    "header only in part": (lambda bam, raw: raw[:13], "truncated within the header"),
    "noise": (lambda bam, raw: raw[:40] + NOISE[: 1 << 18], "damaged BAM"),
    "another byte": (lambda bam, raw: bam[:90] + b"\xff" + bam[91:], "damaged or unreadable"),
    "huge header": (lambda bam, raw: b"BAM\1\xff\xff\xff\xff" + raw[8:], "header of more than 256 MiB"),
    "many references": (lambda bam, raw: raw[:19] + b"\xff\xff\xff\x7f" + raw[23:], "2,147,483,647 reference"),
    "huge record": (lambda bam, raw: raw[:23] + b"\xff\xff\xff\x7f" + raw[27:], "claims 2,147,483,647 bytes"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_bam_is_refused_in_one_line(many: Path, damage: str) -> None:
    make, words = DAMAGE[damage]
    assert raw(many)[4:8] == bytes([11, 0, 0, 0]), "the header's text has another length, and the places below too"
    many.write_bytes(make(many.read_bytes(), raw(many)))
    with pytest.raises(UserError, match=rf"reads\.bam: .*{words}.*copy") as caught:
        read(many)
    assert "\n" not in str(caught.value)
    assert not [thread for thread in threading.enumerate() if thread.name == "alignments"], "the pump goes on"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("r\t4\t*\t0\t0", "eleven fields"),
        ("r\tx\t*\t0\t0\t*\t*\t0\t0\tACGT\t*", "eleven fields"),
        ("r\t4\t*\t0\t0\t*\t*\t0\t0\tAC-T\t*", "sequence of 'r'"),
        ("r\t4\t*\t0\t0\t*\t*\t0\t0\t\t*", "sequence of 'r'"),
        ("r\t4\t*\t0\t0\t*\t*\t0\t0\tÄ\t*", "'ascii' codec"),
    ],
)
def test_damaged_sam_is_refused_in_one_line(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "reads.sam"
    path.write_text(f"@HD\tVN:1.6\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"reads\.sam: damaged SAM: .*{words}.*fix") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_noise_that_begins_like_cram_ends_in_one_line(tmp_path: Path) -> None:
    """More of it than fits a pipe, which nobody reads on."""
    path = tmp_path / "noise.cram"
    path.write_bytes(b"CRAM\3\0" + NOISE)
    with pytest.raises(UserError, match=r"noise\.cram: damaged CRAM"):
        read(path)


@pytest.mark.parametrize("version", ["2.1", "3.0", "3.1"])
def test_cram_cut_short_is_refused(tmp_path: Path, version: str) -> None:
    path = tmp_path / "reads.cram"
    with pysam.AlignmentFile(str(path), "wc", header=UNALIGNED, format_options=[f"version={version}".encode()]) as file:
        read_ = pysam.AlignedSegment(file.header)
        read_.query_name, read_.flag, read_.query_sequence = "r", 4, "ACGT"
        file.write(read_)
    assert read(path) == [("r", "ACGT")]
    path.write_bytes(path.read_bytes()[: -30 if version == "2.1" else -38])
    with pytest.raises(UserError, match="the end mark of a CRAM file is missing"):
        read(path)


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address, and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


READ_IN_A_FRESH_PROCESS = """
import sys
from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence.records import read_records
try:
    print([block.letters.decode() for block in read_records(sys.argv[1])])
except UserError as error:
    print("refused:", error)
"""


def test_a_missing_reference_is_never_fetched_from_the_network(tmp_path: Path, server) -> None:
    address, asked = server
    reference = tmp_path / "reference.fa"
    reference.write_text(">chr1\n" + "ACGTTGCA" * 99 + "\n")
    pysam.faidx(str(reference))
    path = tmp_path / "reads.cram"
    header = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr1", "LN": 792}]}
    with pysam.AlignmentFile(str(path), "wc", header=header, reference_filename=str(reference)) as file:
        aligned = pysam.AlignedSegment(file.header)
        aligned.query_name, aligned.flag, aligned.query_sequence = "r", 0, "ACGTTGCA"
        aligned.reference_id, aligned.reference_start, aligned.cigarstring = 0, 0, "8M"
        file.write(aligned)
    environment = {key: value for key, value in os.environ.items() if key not in ("REF_PATH", "REF_CACHE")}

    def run(**more: str) -> str:
        command = [sys.executable, "-c", READ_IN_A_FRESH_PROCESS, str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment | more)
        assert result.stderr == ""
        return result.stdout.strip()

    assert run() == "['ACGTTGCA']", "the reference that the header names is on this machine"
    folder = tmp_path / "references"
    folder.mkdir()
    with pysam.AlignmentFile(str(path)) as file:
        checksum = file.header.to_dict()["SQ"][0]["M5"]
    (folder / checksum).write_text("ACGTTGCA" * 99)
    reference.unlink()
    (tmp_path / "reference.fa.fai").unlink()
    refused = run()
    assert re.fullmatch(r"refused: .*reads\.cram: damaged CRAM: .*never fetched, name a folder .* REF_PATH.*", refused)
    assert run(REF_PATH=f"{folder}/%s") == "['ACGTTGCA']", "what the user names is used"
    assert run(REF_PATH=f"{address}/%s").startswith("refused")
    assert asked, "the server would have noticed"
    asked.clear()
    (tmp_path / "header.sam").write_text(f"@SQ\tSN:chr1\tLN:792\tM5:{checksum}\tUR:{address}/reference.fa\n")
    path.write_bytes(samtools("reheader", tmp_path / "header.sam", path))
    assert run().startswith("refused")
    assert asked == []


def test_without_pysam_one_line_says_what_to_install(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pysam", None)
    with pytest.raises(UserError, match=r"reads\.bam: .*pip install 'virnucpro-pl\[bam\]'$"):
        read(many)
    sam = many.with_name("reads.sam")
    sam.write_text("r\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\t*\n")
    assert read(sam) == [("r", "ACGT")]


def test_names_that_no_file_should_have_stay_one_word(tmp_path: Path) -> None:
    path = tmp_path / "reads"
    data = bytearray(raw(write(tmp_path / "plain", [("a12345b", 77, "ACGT")])))
    data[data.index(b"12345") : data.index(b"12345") + 5] = b" \t\n\x1b\xff"
    path.write_bytes(data)
    assert read(path) == [("a\\x20\\t\\n\\x1b\\xffb/1", "ACGT")]


def test_whoever_stops_early_leaves_no_thread_behind(many: Path, monkeypatch) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 100)
    blocks = read_records(str(many))
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "alignments"]
