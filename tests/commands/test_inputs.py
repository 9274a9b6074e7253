"""Every kind of input through the whole of ``predict``: where records come from, mates, alignments, hostile names."""

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pysam
import pytest

from commands.test_predict import OPEN, STOPPED, Predict, assert_refused
from support import Result
from virnucpro_pl.files.output_files import CONSENSUS_TABLE, ORF_TABLE


@pytest.fixture
def predict(cli: Callable[..., Result], tmp_path: Path, mini_overrides: list[str]) -> Predict:
    return Predict(cli, tmp_path / "out", mini_overrides)


def fastq(*reads: tuple[str, str]) -> str:
    return "".join(f"@{name}\n{letters}\n+\n{'I' * len(letters)}\n" for name, letters in reads)


def write_bam(path: Path, *reads: tuple[str, int, str | None], mode: str = "wb") -> Path:
    with pysam.AlignmentFile(str(path), mode, header={"HD": {"VN": "1.6"}}) as file:
        for name, flag, letters in reads:
            read = pysam.AlignedSegment(file.header)
            read.query_name, read.flag, read.query_sequence = name, flag, letters
            file.write(read)
    return path


READS: list[tuple[str, int, str | None]] = [
    ("pair", 77, OPEN),
    ("pair", 141, STOPPED),
    ("none", 4, None),
    ("again", 0x100 | 4, OPEN),
    ("part", 0x800 | 4, OPEN),
    ("single", 4, OPEN[3:]),
]


@pytest.mark.parametrize("mode", ["w", "wb", "wc"])
def test_alignments_are_predicted_as_their_reads(predict: Predict, tmp_path: Path, mode: str) -> None:
    """R7, R9: mates named apart, no text for reads without letters, nothing twice, what is left out is told."""
    path = write_bam(tmp_path / "reads", *READS, mode=mode)
    result = predict.ok(f"input={path}")
    assert [(row["sequence_id"], row["status"]) for row in predict.rows()] == [
        ("pair/1", "called"),
        ("pair/2", "no_orf"),
        ("none", "empty"),
        ("single", "called"),
    ]
    (source,) = predict.run()["counts"]["inputs"]
    assert source["format"] == {"w": "sam", "wb": "bam", "wc": "cram"}[mode]
    assert source["skipped"] == {"secondary": 1, "supplementary": 1}
    assert "skipped as repeats of other reads: 1 secondary and 1 supplementary alignments" in result.err
    assert "None" not in predict.text(ORF_TABLE)

    fasta = tmp_path / "reads.fa"
    fasta.write_text(f">pair/1\n{OPEN}\n>pair/2\n{STOPPED}\n>none\n\n>single\n{OPEN[3:]}\n")
    tables = [predict.text(name) for name in (ORF_TABLE, CONSENSUS_TABLE)]
    predict.ok(f"input={fasta}", "overwrite=true")
    assert [predict.text(name) for name in (ORF_TABLE, CONSENSUS_TABLE)] == tables


def test_empty_bam_gives_empty_results(predict: Predict, tmp_path: Path) -> None:
    """R10."""
    result = predict.ok(f"input={write_bam(tmp_path / 'empty.bam')}")
    assert predict.rows() == predict.rows(ORF_TABLE) == predict.rows(CONSENSUS_TABLE) == []
    assert "no records" in result.err


def test_bam_on_standard_input(predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_bam(tmp_path / "reads", *READS).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    predict.ok("input=-")
    assert {row["file"] for row in predict.rows()} == {"-"}
    assert [row["sequence_id"] for row in predict.rows()] == ["pair/1", "pair/2", "none", "single"]


def test_bam_cut_short_is_refused(predict: Predict, tmp_path: Path) -> None:
    path = write_bam(tmp_path / "reads.bam", *READS)
    path.write_bytes(path.read_bytes()[:-40])
    assert_refused(predict(f"input={path}"), "reads.bam", "truncated")


def test_mates_in_two_files_and_interleaved_are_named_apart_in_every_output(predict: Predict, tmp_path: Path) -> None:
    """R7."""
    (tmp_path / "r1.fq").write_text(fastq(("a 1:N:0:T", OPEN), ("b 1:N:0:T", OPEN[3:])))
    (tmp_path / "r2.fq").write_text(fastq(("a 2:N:0:T", OPEN[6:]), ("b 2:N:0:T", OPEN[9:])))
    result = predict.ok(f"input=[{tmp_path / 'r1.fq'},{tmp_path / 'r2.fq'}]", "results.min_viral_fraction=0.000001")
    expected = ["a/1", "b/1", "a/2", "b/2"]
    assert [row["sequence_id"] for row in predict.rows()] == expected
    assert list(dict.fromkeys(row["Sequence_ID"].split("_")[0] for row in predict.rows(ORF_TABLE))) == expected
    assert [row["Modified_ID"] for row in predict.rows(CONSENSUS_TABLE)] == sorted(f"{x}_chunk_1" for x in expected)
    assert [chunk["sequence_id"] for chunk in predict.chunks()] == expected
    viral = {row["sequence_id"] for row in predict.rows() if row["call"] == "virus"}
    assert {entry.split()[0] for entry in predict.text("viral.fasta").split(">")[1:]} == viral
    assert [source["mates"] for source in predict.run()["counts"]["inputs"]] == ["1", "2"]
    assert "mates: 4 records of 2 files" in result.err
    assert "repeat the name" not in result.err

    (tmp_path / "both.fq").write_text(fastq(("a", OPEN), ("a", OPEN[6:]), ("b", OPEN[3:]), ("b", OPEN[9:])))
    result = predict.ok(f"input={tmp_path / 'both.fq'}", "overwrite=true")
    assert [row["sequence_id"] for row in predict.rows()] == ["a/1", "a/2", "b/1", "b/2"]
    assert "mates: 4 records of 1 files" in result.err


def test_every_record_tells_its_file(predict: Predict, tmp_path: Path) -> None:
    """R26: a pattern over odd names, compressed and not, of several formats."""
    folder = tmp_path / "in put"
    folder.mkdir()
    (folder / "a=1.fa").write_text(f">x\n{OPEN}\n>y\n{STOPPED}\n")
    (folder / "b.gz").write_bytes(gzip.compress(fastq(("x", OPEN[3:])).encode(), mtime=0))
    (folder / "c\n\x1b[2J.fa").write_text(f">z\n{OPEN[6:]}\n")
    (folder / "d").write_bytes(b"")
    result = predict.ok(f"input={folder}/*")
    files = [str(folder / name) for name in ("a=1.fa", "a=1.fa", "b.gz", "c\\n\\x1b[2J.fa")]
    assert [row["file"] for row in predict.rows()] == files
    inputs = predict.run()["counts"]["inputs"]
    assert [(source["format"], source["compression"], source["records"]) for source in inputs] == [
        ("fasta", "none", 2),
        ("fastq", "gzip", 1),
        ("fasta", "none", 1),
        ("empty", "none", 0),
    ]
    for source, shown in zip(inputs, dict.fromkeys([*files, str(folder / "d")]), strict=True):
        rows = [row["call"] for row in predict.rows() if row["file"] == shown]
        calls = {call: rows.count(call) for call in ("others", "virus", "ambiguous")}
        assert source["calls"] == {**calls, "not_called": rows.count("NA")}
    assert "\x1b" not in result.err


def test_a_store_of_the_same_content_tells_the_file_of_this_run(predict: Predict, tmp_path: Path) -> None:
    for name in ("first.fa", "second.fa"):
        (tmp_path / name).write_text(f">x\n{OPEN}\n")
        predict.ok(f"input={tmp_path / name}", f"data.store_dir={tmp_path / 'stores'}", "overwrite=true")
        assert [row["file"] for row in predict.rows()] == [str(tmp_path / name)]
        assert [source["path"] for source in predict.run()["counts"]["inputs"]] == [str(tmp_path / name)]


HOSTILE = ["../../etc/passwd", "=cmd|'/C", "+1", "-2", "@SUM(A1)", "<script>alert(1)</script>", "x\x1b[2Jy", "a\x07"]


def test_hostile_names_stay_what_they_are_and_are_warned_of(predict: Predict, tmp_path: Path) -> None:
    """Names are join keys: they come back byte by byte; no file appears elsewhere; a spreadsheet is warned of once."""
    path = tmp_path / "in" / "reads.fa"
    path.parent.mkdir()
    path.write_text("".join(f">{name}\n{OPEN[3 * i :]}\n" for i, name in enumerate(HOSTILE)))
    before = {*tmp_path.rglob("*")}
    result = predict.ok(f"input={path}")
    assert [row["sequence_id"] for row in predict.rows()] == HOSTILE
    assert {row["Sequence_ID"].rpartition("_chunk_")[0] for row in predict.rows(ORF_TABLE)} == {*HOSTILE}
    warnings = [line for line in result.err.splitlines() if "spreadsheet" in line]
    assert len(warnings) == 1
    assert "4 records have names that begin with =, +, - or @" in warnings[0]
    assert sum("spreadsheet" in warning for warning in predict.run()["warnings"]) == 1
    assert predict.run()["counts"]["formula_names"] == 4
    assert all(path.is_relative_to(predict.output) for path in {*tmp_path.rglob("*")} - before)
    assert "\x1b" not in result.err
    assert "\x1b" not in predict.text("run.log")


def test_plain_names_are_not_warned_of(predict: Predict, fasta: Callable[..., Path]) -> None:
    assert "spreadsheet" not in predict.ok(f"input={fasta(('a=b', OPEN), ('c-@+', OPEN[3:]))}").err


def test_messages_show_control_characters_and_do_not_obey_them(predict: Predict, tmp_path: Path) -> None:
    path = tmp_path / "evil\x1b[2J\x7f.fa"
    path.write_bytes(">x\x1b]0;title\x07\u202e\n".encode() + b"AC\xff\n")
    result = predict(f"input={path}")
    assert_refused(result, "evil\\x1b[2J\\x7f.fa", "x\\x1b]0;title\\x07\\u202e")
    path.write_bytes(b"\x1b[31mno sequence\n")
    result = predict(f"input={path}")
    assert_refused(result, "\\x1b[31mno sequence")
    assert "\x1b" not in result.err
