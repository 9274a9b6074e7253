"""F1, F2, F3, F11, F12: inputs as they come in practice, through the whole of ``predict``."""

import gzip
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands.test_predict import OPEN, STOPPED, Predict, assert_refused
from support import Result
from virnucpro_pl.files.output_files import CONSENSUS_TABLE, ORF_TABLE, RESULT_FILES

PROTEIN = "MKTFFLQILPEWAYCDSTVNGHRKELIFPQEMKTFFLQILPEWAYCDSTVNGHRKELIFPQE"
FASTA_FILES = ("viral.fasta", "nonviral.fasta", "uncalled.fasta")


@pytest.fixture
def predict(cli: Callable[..., Result], tmp_path: Path, mini_overrides: list[str]) -> Predict:
    return Predict(cli, tmp_path / "out", mini_overrides)


def fasta(count: int = 8) -> str:
    reads = [STOPPED if number % 4 == 3 else OPEN[number * 3 :] for number in range(count)]
    return "".join(f">r{number} x\n{letters}\n" for number, letters in enumerate(reads))


def fastq(*names: str) -> str:
    reads = [OPEN[3 * number :] for number in range(len(names))]
    return "".join(f"@{name}\n{letters}\n+\n{'I' * len(letters)}\n" for name, letters in zip(names, reads, strict=True))


@contextmanager
def pipe(path: Path, content: str) -> Iterator[Path]:
    """A FIFO that gives this content once."""
    os.mkfifo(path)
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(path.write_text, content)
        yield path
        written.result(timeout=60)


def fasta_records(predict: Predict) -> dict[str, list[str]]:
    return {name: predict.text(name).split(">")[1:] for name in FASTA_FILES}


# --- F1: inputs that cannot be read twice, and inputs that change


def test_sequences_of_a_pipe_are_told_apart_as_those_of_a_file(predict: Predict, tmp_path: Path, monkeypatch) -> None:
    """F1: no format is empty because the input was read before."""
    path = tmp_path / "reads.fa"
    path.write_text(fasta())
    predict.ok(f"input={path}", "formats.nonviral=true")
    expected = fasta_records(predict)
    assert sum(map(len, expected.values())) == 8
    assert expected["uncalled.fasta"]

    with pipe(tmp_path / "pipe", fasta()) as path:
        predict.ok(f"input={path}", "formats.nonviral=true", "overwrite=true")
    assert fasta_records(predict) == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(fasta().encode())))
    predict.ok("input=-", "formats.nonviral=true", "overwrite=true")
    assert fasta_records(predict) == expected

    with pipe(tmp_path / "another", fasta()) as path:  # of a finished run nothing is stored
        (predict.output / "nonviral.fasta").unlink()
        result = predict(f"input={path}", "formats.nonviral=true")
    assert_refused(result, "formats.nonviral=true", "no regular file")


@pytest.mark.parametrize("source", ["-", "/dev/null", "FIFO"])
def test_qualities_of_what_is_no_regular_file_are_refused_at_once(
    predict: Predict, tmp_path: Path, source: str
) -> None:
    """F1: before anything is read; nobody writes into the pipe here."""
    if source == "FIFO":
        source = str(tmp_path / "pipe")
        os.mkfifo(source)
    result = predict(f"input={source}", "formats.fastq=true")
    assert_refused(result, "formats.fastq=true", "standard input" if source == "-" else source, "no regular file")
    assert not predict.output.exists() or not {*predict.output.iterdir()} - {predict.output / "run.log"}


def test_a_pipe_behind_dev_stdin_is_none_either_but_a_file_behind_it_is(tmp_path: Path, mini_overrides) -> None:
    """F1: told by what it is, not by its name."""
    path = tmp_path / "reads.fq"
    path.write_text(fastq("a", "b"))
    words = ["predict", "input=/dev/stdin", "formats.fastq=true", "trainer.accelerator=cpu", *mini_overrides]

    def run(output: str, **source) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "virnucpro_pl", *words, f"output={tmp_path / output}"]
        return subprocess.run(command, capture_output=True, text=True, check=False, **source)

    piped = run("piped", input=path.read_text())
    assert (piped.returncode, "/dev/stdin is no regular file" in piped.stderr) == (2, True), piped.stderr
    with path.open() as stream:
        redirected = run("redirected", stdin=stream)
    assert redirected.returncode == 0, redirected.stderr
    files = (tmp_path / "redirected").glob("*.fastq.gz")
    assert sum(gzip.decompress(file.read_bytes()).count(b"@") for file in files) == 2


@pytest.mark.parametrize("change", ["a read more", "a read less", "another letter", "another file", "cut short"])
def test_reads_of_a_file_that_has_changed_are_not_written(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """F1: the results are those of what was read; qualities of something else are not added to them."""
    from virnucpro_pl.models.virnucpro import VirNucPro

    path = tmp_path / "reads.fq"
    before = fastq("a", "b", "c")
    path.write_text(before)
    after = {
        "a read more": before + fastq("d"),
        "a read less": fastq("a", "b"),
        "another letter": before.replace("@b", "@d"),
        "another file": fasta(),
        "cut short": before[:-10],
    }[change]
    step = VirNucPro.predict_step

    def changes_input(self, batch, batch_idx):
        path.write_text(after)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(VirNucPro, "predict_step", changes_input)
        result = predict(f"input={path}", "formats.fastq=true", "formats.kraken=true")
    assert_refused(result, "reads.fq: was changed since it was read")
    assert {*RESULT_FILES, "kraken.tsv", "report.html", "run.json"} <= {one.name for one in predict.output.iterdir()}
    assert not [*predict.output.glob("*.fastq.gz*")]

    path.write_text(before)
    predict.ok(f"input={path}", "formats.fastq=true")
    assert len([*predict.output.glob("*.fastq.gz")]) == 3


# --- F2, F3: joined files, and letters that are no nucleotides


def test_joined_files_are_refused(predict: Predict, tmp_path: Path) -> None:
    """F2."""
    path = tmp_path / "joined.fa"
    path.write_text(f">one\n{OPEN[:60]}>two\n{OPEN}\n")
    assert_refused(predict(f"input={path}"), "joined.fa", "line 2", "'one'", "joined")


def test_proteins_are_not_called_viral(predict: Predict, tmp_path: Path) -> None:
    """F3: warned of, marked in every table of ours, scored as published in the two published ones."""
    path, dna = tmp_path / "mixed.fa", OPEN * 2
    path.write_text(f">dna\n{dna}\n>protein\n{PROTEIN}\n>numbered\n1 {OPEN[:60]}\n61 {OPEN[60:120]}\n")
    result = predict.ok(f"input={path}", "formats.nonviral=true", "formats.bed=true", "formats.kraken=true")
    (warning,) = [line for line in result.err.splitlines() if "no nucleotides" in line]
    for word in ("mixed.fa", "line 4", "record 2 (protein)", "E", "2 records", "not_nucleotides", "data.alphabet=any"):
        assert word in warning
    assert any("no nucleotides" in told for told in predict.run()["warnings"])
    rows = {row["sequence_id"]: row for row in predict.rows()}
    assert [row["status"] for row in rows.values()] == ["called", "not_nucleotides", "not_nucleotides"]
    for name in ("protein", "numbered"):
        assert (rows[name]["call"], rows[name]["max_virus_score"], rows[name]["called_chunks"]) == ("NA", "NA", "0")
    for chunk in predict.chunks():
        assert (chunk["call"] is None) == (chunk["sequence_id"] != "dna") == (chunk["status"] == "not_nucleotides")
    assert [entry.split()[0] for entry in predict.text("uncalled.fasta").split(">")[1:]] == ["protein", "numbered"]
    assert "protein" not in predict.text("viral.fasta") + predict.text("viral_chunks.bed")
    assert [line[0] for line in predict.text("kraken.tsv").splitlines()][1:] == ["U", "U"]
    assert predict.cli("verify", f"output={predict.output}").code == 0
    published = [predict.text(name) for name in (ORF_TABLE, CONSENSUS_TABLE)]
    assert "numbered_chunk_1" in published[1]

    predict.ok(f"input={path}", "data.alphabet=any", "overwrite=true")
    assert [predict.text(name) for name in (ORF_TABLE, CONSENSUS_TABLE)] == published
    assert "not_nucleotides" not in {row["status"] for row in predict.rows()}
    assert_refused(predict(f"input={path}"), "data.alphabet=any there, iupac here")


def test_plain_sequences_are_not_warned_of(predict: Predict, tmp_path: Path) -> None:
    path = tmp_path / "plain.fa"
    path.write_text(f">a\n{OPEN}\n>b\n{OPEN.lower()}RYSWKMBDHVN-.*\n")
    assert "nucleotides" not in predict.ok(f"input={path}").err
    (source,) = predict.run()["counts"]["inputs"]
    assert source["letters"] == 2 * len(OPEN) + 14
    assert "no_nucleotides" not in source


# --- F11, F12


@pytest.mark.parametrize("name", ["manifest.json", "samples.json"])
def test_json_is_told_from_sequences(predict: Predict, tmp_path: Path, name: str) -> None:
    """F11."""
    path = tmp_path / name
    path.write_text('{"files": {}}')
    assert_refused(predict(f"input={path}"), f"{name}: JSON, not sequences")
    (tmp_path / "orfs.arrow").touch()
    assert_refused(predict(f"input={path}"), f"or {tmp_path} for the dataset")


@pytest.mark.parametrize(
    ("names", "orphan"),
    [
        (["p1 1:N:0:A", "p1 2:N:0:A", "p2 1:N:0:A", "p3 1:N:0:A", "p3 2:N:0:A"], "record 3 (p2)"),
        (["p1/1", "p1/2", "p2/1", "p2/2", "p3/1"], "record 5 (p3)"),
        (["p0", "p1", "p1", "p2", "p2"], "record 1 (p0)"),
    ],
)
def test_a_read_without_mate_among_pairs_is_told(predict: Predict, tmp_path: Path, names, orphan: str) -> None:
    """F12: no read is dropped, none is paired with another's mate, and the user is told what to do."""
    path = tmp_path / "interleaved.fq"
    path.write_text(fastq(*names))
    result = predict.ok(f"input={path}")
    (warning,) = [line for line in result.err.splitlines() if "no mate beside it" in line]
    assert orphan in warning
    assert len(predict.rows()) == 5
    assert predict.run()["counts"]["inputs"][0]["mates"] is None


def test_names_that_end_in_1_and_2_after_a_dot_are_no_mates(predict: Predict, tmp_path: Path) -> None:
    """F12: ``.1`` is the number of a spot or a version as often as that of a read."""
    for mate in (1, 2):
        (tmp_path / f"r{mate}.fq").write_text(fastq(*(f"RUN1.{spot}.{mate} {spot} length=9" for spot in (1, 2))))
    predict.ok(f"input=[{tmp_path / 'r1.fq'},{tmp_path / 'r2.fq'}]")
    assert [row["sequence_id"] for row in predict.rows()] == ["RUN1.1.1", "RUN1.2.1", "RUN1.1.2", "RUN1.2.2"]
    assert [source["mates"] for source in predict.run()["counts"]["inputs"]] == [None, None]


# --- names


NAMES = {
    b"NA": "NA",
    b"=1+1": "=1+1",
    b'"quoted': '"quoted',
    b"'single'": "'single'",
    b"tab\there": "tab",
    b"caf\xe9": "caf\\xe9",
    "日本".encode(): "日本",
    b"nan": "nan",
    b"1e3": "1e3",
    b"007": "007",
    b"a,b;c|d": "a,b;c|d",
    b"back\\slash": "back\\slash",
    b"null": "null",
}


def test_names_are_kept_to_the_letter_in_every_file(predict: Predict, tmp_path: Path) -> None:
    """Ids are keys: whatever they look like, they come out as they went in, bytes outside UTF-8 escaped."""
    path = tmp_path / "names.fa"
    reads = [b">" + name + b" more\n" + OPEN[3 * n :].encode() + b"\n" for n, name in enumerate(NAMES)]
    path.write_bytes(b"".join(reads))
    expected = [*NAMES.values()]
    for words in (["results.min_viral_fraction=0.000001"], ["results.min_viral_fraction=1", "results.threshold=0.999"]):
        predict.ok(f"input={path}", "formats.nonviral=true", "formats.kraken=true", "overwrite=true", *words)
        assert [row["sequence_id"] for row in predict.rows()] == expected
        assert [chunk["sequence_id"] for chunk in predict.chunks()] == expected
        assert [line.split("\t")[1] for line in predict.text("kraken.tsv").splitlines()] == expected
        headers = [line for name in FASTA_FILES for line in predict.text(name).splitlines() if line.startswith(">")]
        shown = [f">{name} here more" if name == "tab" else f">{name} more" for name in expected]
        assert sorted(headers) == sorted(shown)
