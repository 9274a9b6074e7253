"""What a user of ``predict`` sees: files, statuses, messages, exit codes."""

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support import Result, file_name, model_overrides, read_table, synonymous_reads
from virnucpro_pl.files.output_files import CONSENSUS_TABLE, ORF_TABLE, RECORD_TABLE, RESULT_FILES

OPEN = "ATGGCTGCAGCTGCTGGTGCTGCAGCTGCAGGAGCTGCTGCAGCTGGTGCAGCTGCT" * 2
STOPPED = "TAATTAATTAACTAGCTAGCTAGTCATCATCATTTATTTATTTA" * 3
NOTHING_BUT_HEADERS = {
    ORF_TABLE: "Sequence_ID\tPrediction\tscore1\tscore2\n",
    CONSENSUS_TABLE: "Modified_ID\tIs_Virus\tmax_score_0\tmax_score_1\n",
}


class Predict:
    """Runs ``predict`` with the mini models and reads what it wrote."""

    def __init__(self, cli: Callable[..., Result], output: Path, overrides: list[str]):
        self.cli = cli
        self.output = output
        self.overrides = overrides

    def __call__(self, *arguments: object) -> Result:
        return self.cli("predict", f"output={self.output}", *self.overrides, "trainer.accelerator=cpu", *arguments)

    def ok(self, *arguments: object) -> Result:
        result = self(*arguments)
        assert result.code == 0, result.err
        return result

    def accepted(self, *arguments: object) -> None:
        """Have the other commands, and the same one again, take what was written for a finished run."""
        for command in ("verify", "report"):
            result = self.cli(command, f"output={self.output}")
            assert result.code == 0, result.err
        assert "Finished already" in self.ok(*arguments).err

    def text(self, name: str) -> str:
        return (self.output / name).read_text(encoding="utf-8")

    def rows(self, name: str = RECORD_TABLE) -> list[dict[str, str]]:
        header, *lines = self.text(name).splitlines()
        return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]

    def run(self) -> dict:
        return json.loads(self.text("run.json"))

    def chunks(self) -> list[dict]:
        return pq.read_table(self.output / "predictions.parquet").to_pylist()


@pytest.fixture
def predict(cli: Callable[..., Result], tmp_path: Path, mini_overrides: list[str]) -> Predict:
    return Predict(cli, tmp_path / "out", mini_overrides)


def assert_refused(result: Result, *words: str) -> None:
    """One clear line, exit code 2, no traceback."""
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    (line,) = [line for line in result.err.splitlines() if line.startswith("Error: ")]
    for word in words:
        assert word in line


# --- what is written


def test_every_record_and_chunk_is_accounted_for(predict: Predict, fasta: Callable[..., Path]) -> None:
    path = fasta(
        ("open", OPEN), ("stopped", STOPPED), ("short", "AC"), ("unknown", "N" * 50), ("empty", ""), ("long", OPEN * 9)
    )
    result = predict.ok(f"input={path}")
    rows = {row["sequence_id"]: row for row in predict.rows()}
    assert {name: row["status"] for name, row in rows.items()} == {
        "open": "called",
        "stopped": "no_orf",
        "short": "too_short",
        "unknown": "ambiguous_only",
        "empty": "empty",
        "long": "called",
    }
    assert [row["record"] for row in rows.values()] == ["1", "2", "3", "4", "5", "6"]
    for row in rows.values():
        assert (row["call"] == "NA") == (row["status"] != "called")
        assert (row["max_virus_score"] == "NA") == (row["status"] != "called")
    assert rows["long"]["length"] == str(len(OPEN) * 9)
    chunks = predict.chunks()
    for name, row in rows.items():
        own = [chunk for chunk in chunks if chunk["sequence_id"] == name]
        assert len(own) == int(row["chunks"])
        assert sum(chunk["orfs"] for chunk in own) == int(row["orfs"])
        assert sum(chunk["viral_orfs"] for chunk in own) == int(row["viral_orfs"])
        assert sum(chunk["status"] == "called" for chunk in own) == int(row["called_chunks"])
        assert sum(chunk["call"] == "virus" for chunk in own) == int(row["viral_chunks"])
    counts = predict.run()["counts"]
    assert sum(counts["record_status"].values()) == counts["records"] == 6
    assert sum(counts["chunk_status"].values()) == counts["chunks"] == len(chunks)
    assert sum(counts["calls"]["records"].values()) == 6
    assert counts["orfs"] == len(predict.rows(ORF_TABLE))
    assert "6 records" in result.err
    assert "2 called + 1 no_orf + 1 ambiguous_only + 1 too_short + 1 empty" in result.err


def test_chunk_table_holds_the_scores_of_the_orf_table(predict: Predict, mini: Path) -> None:
    predict.ok(f"input={mini / 'inputs' / 'mini.fa'}")
    by_chunk = {chunk["chunk_id"]: chunk for chunk in predict.chunks()}
    orfs = predict.rows(ORF_TABLE)
    for row in orfs:
        chunk, frame = row["Sequence_ID"][:-2], row["Sequence_ID"][-2:]
        assert by_chunk[chunk][f"virus_score_{frame}"] == pytest.approx(float(row["score2"]), abs=1e-7)
    filled = [score for chunk in by_chunk.values() for key, score in chunk.items() if key.startswith("virus_score_")]
    assert sum(score is not None for score in filled) == len(orfs)
    best = {
        name: max(float(row["score2"]) for row in orfs if row["Sequence_ID"][:-2] == name)
        for name in by_chunk
        if by_chunk[name]["orfs"]
    }
    assert {row["Modified_ID"]: float(row["max_score_1"]) for row in predict.rows(CONSENSUS_TABLE)} == pytest.approx(
        best
    )


def test_published_tables_are_tab_separated_without_quotes(predict: Predict, fasta: Callable[..., Path]) -> None:
    path = fasta(("b", OPEN), ('a,"x', OPEN), ("B", OPEN))
    predict.ok(f"input={path}")
    for name, columns in ((ORF_TABLE, 4), (CONSENSUS_TABLE, 4)):
        data = (predict.output / name).read_bytes()
        assert b"\r" not in data
        assert data.endswith(b"\n")
        assert {line.count(b"\t") for line in data.splitlines()} == {columns - 1}
    assert [row["Modified_ID"] for row in predict.rows(CONSENSUS_TABLE)] == ["B_chunk_1", 'a,"x_chunk_1', "b_chunk_1"]
    names = [row["Sequence_ID"][:-2] for row in predict.rows(ORF_TABLE)]
    assert list(dict.fromkeys(names)) == ["b_chunk_1", 'a,"x_chunk_1', "B_chunk_1"], "not in input order"


def test_viral_records_are_in_viral_fasta_as_they_were(
    predict: Predict, fasta: Callable[..., Path], mini: Path
) -> None:
    entries = [entry.split("\n", 1) for entry in (mini / "inputs" / "mini.fa").read_text().split(">")[1:]]
    records = [(header, body.replace("\n", "")) for header, body in entries]
    records += [("open in words", OPEN.lower()), ("open", OPEN)]
    predict.ok(f"input={fasta(*records)}")
    rows = predict.rows()
    viral = [index for index, row in enumerate(rows) if row["call"] == "virus"]
    assert 0 < len(viral) < len(rows), "the test needs viral records and others"
    assert rows[-1]["sequence_id"] == "open_dup2"
    found = {}
    for entry in predict.text("viral.fasta").split(">")[1:]:
        header, *lines = entry.splitlines()
        found[header] = "".join(lines)
        assert max(map(len, lines)) <= 60
    headers = [header for header, _ in records[:-1]] + ["open_dup2"]
    assert found == {headers[index]: records[index][1] for index in viral}


def test_run_record_tells_what_ran(predict: Predict, mini: Path) -> None:
    predict.ok(f"input={mini / 'inputs' / 'mini.fa'}")
    run = predict.run()
    assert run["engine"]["attention"] == {"DNABERT-S": "runs", "ESM-2": "runs"}
    assert run["engine"]["precision"] == "32-true"
    assert run["engine"]["devices"] == ["cpu"]
    assert run["config"]["data"]["chunk_length"] == 300
    assert len(run["counts"]["inputs"][0]["sha256"]) == 64
    for part in ("dna_encoder", "protein_encoder", "head"):
        assert all(len(digest) == 64 for digest in run["model"]["weights"][part]["sha256"].values())
    stages = run["figures"]["stages"]
    assert list(stages) == [
        "Chunking", "Translation", "Storing and planning", "DNABERT-S", "ESM-2", "Head", "Consensus", "Writing",
    ]  # fmt: skip
    assert all(stage["seconds"] > 0 for stage in stages.values())
    assert sum(stage["share"] for stage in stages.values()) == pytest.approx(1, abs=1e-3)
    for encoder in run["figures"]["encoders"].values():
        assert encoder["tokens_per_second"] > 0
        assert 0.95 < encoder["packing_efficiency"] <= 1


def test_summary_in_log_and_on_terminal_agree_with_the_run_record(predict: Predict, mini: Path) -> None:
    result = predict.ok(f"input={mini / 'inputs' / 'mini.fa'}")
    log, figures = predict.text("run.log"), predict.run()["figures"]
    for text in (result.err, log):
        assert f"{figures['encoders']['ESM-2']['tokens_per_second']:,.0f} tokens/s" in text
        assert f"packing efficiency {figures['packing_efficiency']:.1%}" in text
        assert f"waiting for data: mean {figures['wait_mean_ms']:.1f} ms" in text
        assert text.count("packing efficiency ") == 3, "one for each encoder, one for both"
    assert result.err.splitlines()[0].startswith("Device: cpu")
    assert len(result.err.splitlines()) < 50, "a short run floods the log"


def test_work_folder_goes_and_nothing_is_written_beside_the_input(predict: Predict, mini: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x.fa.dir" / "nucleotide output_1"
    folder.mkdir(parents=True)
    path = folder / file_name("Gewässer s.v1.fasta.gz")
    path.write_bytes(gzip.compress((mini / "inputs" / "mini.fa").read_bytes(), mtime=0))
    folder.chmod(0o555)
    predict.ok(f"input={path}")
    assert list(folder.iterdir()) == [path]
    expected = mini / "expected" / "mini__300" / ORF_TABLE
    assert [row["Sequence_ID"] for row in predict.rows(ORF_TABLE)] == [
        line.split("\t")[0] for line in expected.read_text().splitlines()[1:]
    ]
    assert sorted(path.name for path in predict.output.iterdir()) == sorted(
        [*RESULT_FILES, "report.html", "run.json", "run.log"]
    )


def test_table_goes_to_standard_output_on_request(mini: Path, mini_overrides: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "virnucpro_pl", "predict", "input=-", "output=-", *mini_overrides]
    reads = (mini / "inputs" / "mini.fa").read_bytes()
    result = subprocess.run(
        command, input=gzip.compress(reads, mtime=0), capture_output=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr.decode()
    lines = result.stdout.decode().splitlines()
    assert lines[0].startswith("record\tsequence_id\t")
    assert len(lines) == 1 + reads.count(b">")
    assert not (tmp_path / "-").exists()
    [table] = tmp_path.rglob(RECORD_TABLE)
    assert result.stdout == table.read_bytes()


def test_who_stops_reading_ends_a_finished_run_quietly(mini: Path, mini_overrides: list[str], tmp_path: Path) -> None:
    """As ``| head`` does; the status is that of ``cat`` in its place, and the results are there."""
    reads = mini / "inputs" / "mini.fa"
    command = [sys.executable, "-m", "virnucpro_pl", "predict", f"input={reads}", "output=-", *mini_overrides]
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        result = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    finally:
        os.close(write_end)
    assert result.returncode == 128 + signal.SIGPIPE
    last_line = result.stderr.splitlines()[-1]
    assert last_line.startswith("Results: "), result.stderr
    assert [*tmp_path.rglob("run.json")]


def test_a_table_is_not_held_whole_on_its_way_to_standard_output(tmp_path: Path) -> None:
    with (tmp_path / "table").open("wb") as table:
        table.truncate(100_000_000)
    code = (
        "import sys, tracemalloc; from pathlib import Path;"
        "from virnucpro_pl.host.standard_output import copy_to_standard_output; tracemalloc.start();"
        "copy_to_standard_output(Path('table')); print(tracemalloc.get_traced_memory()[1], file=sys.stderr)"
    )
    with (tmp_path / "copy").open("wb") as copy:
        run = subprocess.run(
            [sys.executable, "-c", code], stdout=copy, stderr=subprocess.PIPE, check=True, cwd=tmp_path
        )
    assert (tmp_path / "copy").stat().st_size == 100_000_000
    assert int(run.stderr) < 1_000_000


# --- what goes in


def test_formats_and_several_files_give_the_same_calls(predict: Predict, mini: Path, tmp_path: Path) -> None:
    """FASTA, gzip, FASTQ, CRLF, several files, a pattern: one and the same result (R10, R26)."""
    text = (mini / "inputs" / "mini.fa").read_text()
    records = [entry.split("\n", 1) for entry in text.split(">")[1:]]
    records = [(header, body.replace("\n", "")) for header, body in records if body.strip()]
    plain = "".join(f">{header}\n{body}\n" for header, body in records)
    half = len(records) // 2
    variants = {
        "plain": {"a.fa": plain},
        "gzip": {"a.txt": gzip.compress(plain.encode(), mtime=0)},
        "crlf": {"a.fa": plain.replace("\n", "\r\n")},
        "fastq": {"reads": "".join(f"@{header}\n{body}\n+\n{'I' * len(body)}\n" for header, body in records)},
        "two": {
            "a.fa": "".join(f">{header}\n{body}\n" for header, body in records[:half]),
            "b.fa": "".join(f">{header}\n{body}\n" for header, body in records[half:]),
        },
    }
    tables = {}
    for variant, files in variants.items():
        folder = tmp_path / variant
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        predict.ok(f"input={folder}/*", "overwrite=true")
        tables[variant] = [(row["Sequence_ID"], row["Prediction"]) for row in predict.rows(ORF_TABLE)]
    assert all(table == tables["plain"] for table in tables.values())
    two = tmp_path / "two"
    predict.ok(f"input=[{two / 'a.fa'},{two / 'b.fa'}]", "overwrite=true")
    assert [(row["Sequence_ID"], row["Prediction"]) for row in predict.rows(ORF_TABLE)] == tables["plain"]
    assert [source["records"] for source in predict.run()["counts"]["inputs"]] == [half, len(records) - half]


@pytest.mark.parametrize("content", [b"", b"\n\n", gzip.compress(b"", mtime=0)])
def test_empty_input_gives_empty_results(predict: Predict, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "empty.fastq"
    path.write_bytes(content)
    result = predict.ok(f"input={path}")
    for name, text in NOTHING_BUT_HEADERS.items():
        assert predict.text(name) == text
    assert len(predict.text(RECORD_TABLE).splitlines()) == 1
    assert not predict.chunks()
    assert "no records" in result.err
    predict.accepted(f"input={path}")


def test_input_without_any_orf_gives_its_records(predict: Predict, fasta: Callable[..., Path]) -> None:
    path = fasta(("a", STOPPED), ("b", "A"))
    predict.ok(f"input={path}")
    assert predict.text(ORF_TABLE) == NOTHING_BUT_HEADERS[ORF_TABLE]
    assert [row["status"] for row in predict.rows()] == ["no_orf", "too_short"]
    predict.accepted(f"input={path}")


def test_repeated_names_are_kept_apart(predict: Predict, fasta: Callable[..., Path]) -> None:
    path = fasta(("read", OPEN), ("read", STOPPED), ("read_dup2", OPEN), ("read", OPEN[3:]))
    result = predict.ok(f"input={path}")
    assert [row["sequence_id"] for row in predict.rows()] == ["read", "read__dup2", "read_dup2", "read__dup3"]
    assert "2 records repeat the name" in result.err
    assert "__dup2" in result.err
    ids = [row["Sequence_ID"] for row in predict.rows(ORF_TABLE)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "header",
    [
        "id with words",
        "gi|123|ref|NC_1.1|",
        "a/b/../c",
        "x_chunk_1",
        "Gewässer",
        "",
        "#hash",
        "-",
        '"q',
        "<b>",
        "%s{0}",
    ],
)
def test_odd_names_come_back_unchanged(predict: Predict, fasta: Callable[..., Path], header: str) -> None:
    predict.ok(f"input={fasta((header, OPEN))}")
    name = (header.split() or [""])[0]
    assert [row["sequence_id"] for row in predict.rows()] == [name]
    assert {row["Modified_ID"] for row in predict.rows(CONSENSUS_TABLE)} == {f"{name}_chunk_1"}


def test_names_that_are_no_utf8_are_escaped(predict: Predict, tmp_path: Path) -> None:
    path = tmp_path / "latin1.fa"
    path.write_bytes(b">caf\xe9\n" + OPEN.encode() + b"\n")
    predict.ok(f"input={path}")
    assert [row["sequence_id"] for row in predict.rows()] == ["caf\\xe9"]


@pytest.mark.parametrize(
    ("letters", "same_as"),
    [
        (OPEN.lower(), OPEN),
        (OPEN.replace("T", "U"), OPEN),
        ("N" * 30 + OPEN, None),
        ("-" + OPEN, None),
        ("RYKM" + OPEN, None),
    ],
)
def test_letters_other_than_acgt(
    predict: Predict, fasta: Callable[..., Path], letters: str, same_as: str | None
) -> None:
    path = fasta(("x", letters), *([("y", same_as)] if same_as else []))
    predict.ok(f"input={path}", "data.ambiguity=resolved")
    rows = predict.rows()
    assert rows[0]["status"] == "called"
    if same_as:
        assert rows[0]["max_virus_score"] == rows[1]["max_virus_score"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0", ["neither FASTA nor FASTQ"]),
        (b"once upon a time\n", ["neither FASTA nor FASTQ", "once upon"]),
        (gzip.compress(b">a\nACGT\n" * 5000, mtime=0)[:60], ["truncated"]),
        (b"@a\nACGT\n+\nII\n", ["FASTQ"]),
        (b"@a\nACGT\n", ["FASTQ"]),
    ],
)
def test_damaged_file_is_refused_by_name(predict: Predict, content: bytes, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "reads.fa"
    path.write_bytes(content)
    assert_refused(predict(f"input={path}"), "reads.fa", *words)
    assert not (predict.output / "run.json").exists()


@pytest.mark.parametrize(
    "name",
    ["x.fa.dir/nucleotide/merged.fasta.gz", "two words.fa", "Gewässer.fasta", "no_ending", ".hidden", "a=b,c.fa"],
)
def test_files_of_any_name_are_read(predict: Predict, mini: Path, tmp_path: Path, name: str) -> None:
    """R26: the published tool cuts paths at '.fa' and replaces words in them."""
    content = (mini / "inputs" / "mini.fa").read_bytes()
    path = tmp_path / "in" / file_name(name)
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    predict.ok(f"input={path}")
    assert len(predict.rows()) == content.count(b">")
    assert [source["path"] for source in predict.run()["counts"]["inputs"]] == [str(path)]


def test_missing_file_and_folder_are_refused(predict: Predict, tmp_path: Path) -> None:
    assert_refused(predict(f"input={tmp_path / 'nowhere.fa'}"), "nowhere.fa", "does not exist")
    assert_refused(predict(f"input={tmp_path}"), str(tmp_path), "folder")


# --- settings


def test_head_for_another_chunk_length_is_refused(predict: Predict, mini: Path) -> None:
    path = f"input={mini / 'inputs' / 'mini.fa'}"
    assert_refused(predict(path, "data.chunk_length=500"), "300", "500", "any_chunk_length")
    head = mini / "models" / "mlp" / "500_model.pth"
    assert_refused(predict(path, f"model.head.weights={head}", "data.chunk_length=300"), "500_model.pth")
    predict.ok(path, "data.chunk_length=500", "model.head.any_chunk_length=true")


def test_head_for_other_encoders_is_refused(predict: Predict, mini: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(mini / "models" / "safetensors" / "mlp_300.safetensors")
    tensors["hidden_layer.weight"] = tensors["hidden_layer.weight"][:, :77].contiguous()
    save_file(tensors, tmp_path / "narrow.safetensors", metadata={"chunk_length": "300"})
    result = predict(f"input={mini / 'inputs' / 'mini.fa'}", f"model.head.weights={tmp_path / 'narrow.safetensors'}")
    assert_refused(result, "77", "48", "32", "80")


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("data.chunk_length=2", "chunk_length"),
        ("data.chunking=odd", "published"),
        ("data.ambiguity=odd", "resolved"),
        ("data.token_budget=0", "token_budget"),
        ("results.tie=odd", "ambiguous"),
        ("results.min_viral_fraction=0", "min_viral_fraction"),
        ("model.head.weights=nowhere.pth", "nowhere.pth"),
        ("model.dna_encoder.weights=./nowhere", "model.dna_encoder.weights"),
        ("model.protein_encoder.weights=nowhere.pt", "model.protein_encoder.weights"),
        ("+data.misspelt=1", "misspelt"),
    ],
)
def test_useless_setting_is_refused(predict: Predict, mini: Path, override: str, word: str) -> None:
    extra = ["model.head.any_chunk_length=true"] if "chunk_length" in override else []
    assert_refused(predict(f"input={mini / 'inputs' / 'mini.fa'}", override, *extra), word)


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a CUDA device: hide it")
def test_device_that_is_not_there_is_refused(predict: Predict, mini: Path) -> None:
    assert_refused(predict(f"input={mini / 'inputs' / 'mini.fa'}", "trainer.accelerator=gpu"), "gpu")


def test_even_chunks_are_all_of_full_length(predict: Predict, fasta: Callable[..., Path]) -> None:
    path = fasta(("long", OPEN * 8))
    predict.ok(f"input={path}", "data.chunking=even")
    assert {chunk["end"] - chunk["start"] for chunk in predict.chunks()} == {300}
    predict.ok(f"input={path}", "overwrite=true")
    assert min(chunk["end"] - chunk["start"] for chunk in predict.chunks()) < 300


def test_ambiguous_codons_can_be_resolved(predict: Predict, fasta: Callable[..., Path]) -> None:
    """R6: 285 N and 15 bases: published pairs the N with the residues of the tail."""
    path = fasta(("x", "N" * 285 + "GCTGCTGCTGCTGCT"))
    predict.ok(f"input={path}")
    published = predict.text(ORF_TABLE)
    predict.ok(f"input={path}", "data.ambiguity=resolved", "overwrite=true")
    assert predict.text(ORF_TABLE) != published


def orfs_of(predict: Predict) -> tuple[list[tuple[bytes, bytes]], set[bytes]]:
    """Nucleotides and protein of all ORFs of the input, and the distinct proteins, told by the ORF store."""
    (store,) = (predict.output.parent / "stores").iterdir()
    rows = read_table(store / "orfs.arrow").to_pylist()
    return [(row["nucleotides"], row["protein"]) for row in rows], {row["protein"] for row in rows}


@pytest.mark.parametrize("token_budget", [300, 4096])
def test_what_repeats_is_embedded_once_with_the_same_bytes(predict: Predict, tmp_path: Path, token_budget: int) -> None:
    """Repeated reads, reverse complements, synonymous codons: less work, and nothing else changes."""
    path = tmp_path / "reads.fa"
    path.write_text(synonymous_reads(seed=1))
    settings = (f"input={path}", f"data.token_budget={token_budget}", f"data.store_dir={tmp_path / 'stores'}")
    result = predict.ok(*settings)
    run, once = predict.run(), {name: (predict.output / name).read_bytes() for name in RESULT_FILES}
    orfs, proteins = orfs_of(predict)
    unique = len(set(orfs))

    assert len(proteins) < 0.8 * unique < 0.7 * len(orfs)
    assert run["counts"]["saved"] == {"orfs": len(orfs) - unique, "proteins": unique - len(proteins)}
    assert run["figures"]["embedded_orfs"] == run["figures"]["encoders"]["DNABERT-S"]["sequences"] == unique
    assert run["figures"]["encoders"]["ESM-2"]["sequences"] == len(proteins)
    assert f"repeated ORFs embedded once: {len(orfs) - unique:,} of {len(orfs):,} saved" in result.err
    assert f"of different ORFs embedded once: {unique - len(proteins):,} of {unique:,} saved" in result.err

    result = predict.ok(*settings, "data.deduplicate=false", "overwrite=true")
    run = predict.run()
    assert run["counts"]["saved"] == {"orfs": 0, "proteins": 0}
    assert f"repeated ORFs embedded once: 0 of {len(orfs):,} saved" in result.err
    assert {encoder["sequences"] for encoder in run["figures"]["encoders"].values()} == {len(orfs)}
    assert {name: (predict.output / name).read_bytes() for name in RESULT_FILES} == once


def test_every_token_budget_gives_the_same_calls(predict: Predict, mini: Path) -> None:
    tables = set()
    for budget in (1, 64, 1000, 10**6):
        predict.ok(f"input={mini / 'inputs' / 'mini.fa'}", f"data.token_budget={budget}", "overwrite=true")
        tables.add(tuple((row["Sequence_ID"], row["Prediction"]) for row in predict.rows(ORF_TABLE)))
    assert len(tables) == 1


def test_record_is_viral_from_the_share_asked_for(predict: Predict, mini: Path) -> None:
    path = f"input={mini / 'inputs' / 'mini.fa'}"
    predict.ok(path, "results.min_viral_fraction=0.000001")
    some = {row["sequence_id"] for row in predict.rows() if row["call"] == "virus"}
    predict.ok(path, "results.min_viral_fraction=1", "overwrite=true")
    every = {row["sequence_id"] for row in predict.rows() if row["call"] == "virus"}
    assert every < some


# --- again and again


def test_other_input_of_the_same_name_is_read_anew(predict: Predict, fasta: Callable[..., Path]) -> None:
    """R23: the published tool gives the old results."""
    predict.ok(f"input={fasta(('a', OPEN))}", f"data.store_dir={predict.output.parent / 'stores'}")
    first = predict.rows()
    predict.ok(
        f"input={fasta(('b', OPEN[5:]))}", f"data.store_dir={predict.output.parent / 'stores'}", "overwrite=true"
    )
    assert predict.rows() != first
    assert [row["sequence_id"] for row in predict.rows()] == ["b"]


def test_a_run_that_failed_continues_from_its_parts(
    predict: Predict, mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after some batches; the next start embeds the others only and ends with the same files."""
    from virnucpro_pl.models.virnucpro import VirNucPro

    path = f"input={mini / 'inputs' / 'mini.fa'}"
    predict.ok(path, "data.token_budget=300")
    whole = {name: (predict.output / name).read_bytes() for name in RESULT_FILES}
    batches = predict.run()["figures"]["batches"]

    step = VirNucPro.predict_step

    def fails_late(self, batch, batch_idx):
        if batch_idx == 4:
            raise RuntimeError("power cut")
        return step(self, batch, batch_idx)

    predict.output = predict.output.with_name("killed")
    with monkeypatch.context() as patch:
        patch.setattr(VirNucPro, "predict_step", fails_late)
        failed = predict(path, "data.token_budget=300")
    assert failed.code == 1
    assert "power cut" in failed.err
    assert not any((predict.output / name).exists() for name in RESULT_FILES)
    predict.ok(path, "data.token_budget=300")
    assert predict.run()["figures"]["batches"] == batches - 4
    assert {name: (predict.output / name).read_bytes() for name in RESULT_FILES} == whole


def test_lost_batch_is_noticed(predict: Predict, mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R11, R12: no result file appears unless every planned ORF was scored exactly once."""
    from virnucpro_pl.callbacks.score_shard_writer import ScoreShardWriter

    write = ScoreShardWriter.write_on_batch_end

    def forgets(self, trainer, pl_module, prediction, *rest):
        if prediction.number != 1:
            write(self, trainer, pl_module, prediction, *rest)

    monkeypatch.setattr(ScoreShardWriter, "write_on_batch_end", forgets)
    result = predict(f"input={mini / 'inputs' / 'mini.fa'}", "data.token_budget=300")
    assert result.code == 1
    assert "missing" in result.err
    assert not any((predict.output / name).exists() for name in RESULT_FILES)


def test_progress_is_told_without_a_terminal(predict: Predict, mini: Path) -> None:
    """R44: lines with done, total and time left."""
    result = predict.ok(f"input={mini / 'inputs' / 'mini.fa'}", "data.token_budget=300", "callbacks.progress.seconds=0")
    lines = [line for line in result.err.splitlines() if line.startswith("Predicting: ")]
    batches = predict.run()["figures"]["batches"]
    assert len(lines) == batches
    assert f"{batches} of {batches} batches (100 %)" in lines[-1]
    assert "left" in lines[0]
    # The scores of a batch are there when the next one is done.
    assert re.search(r"\d ESM-2 tokens/s, \d+\.\d% of ORFs viral so far, about", lines[-1])
    assert "viral so far" not in lines[0]


def test_a_terminal_shows_a_bar_with_speed_and_findings(
    predict: Predict, mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich asks the terminal itself
    monkeypatch.setenv("COLUMNS", "200")
    result = predict.ok(f"input={mini / 'inputs' / 'mini.fa'}", "data.token_budget=300")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", result.err)
    batches = predict.run()["figures"]["batches"]
    assert f"{batches}/{batches}" in shown
    assert re.search(r"\d ESM-2 tokens/s, \d+\.\d% of ORFs viral so far", shown)
    assert "Predicting: " not in shown


def test_demo_needs_nothing_and_says_what_it_is(cli: Callable[..., Result], tmp_path: Path) -> None:
    result = cli("predict", f"output={tmp_path}")
    assert result.code == 0, result.err
    assert result.err.lower().count("demo model, not for science") >= 2
    run = json.loads((tmp_path / "run.json").read_text())
    assert "demo model, not for science" in run["warnings"]
    assert run["counts"]["records"] >= 5
    assert run["counts"]["calls"]["records"]["virus"] > 0


def test_model_overrides_are_read_from_the_checkpoint(predict: Predict, mini: Path, golden: Path) -> None:
    """R31: another encoder of other sizes needs no other setting."""
    predict.overrides = model_overrides(golden)
    predict.ok(f"input={mini / 'inputs' / 'mini.fa'}")
    widths = predict.run()["model"]["weights"]
    assert str(golden.resolve()) in widths["dna_encoder"]["path"]


def test_gzip_on_standard_input_is_told_by_content(
    mini: Path, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, mini_overrides: list[str], tmp_path: Path
) -> None:
    data = gzip.compress((mini / "inputs" / "mini.fa").read_bytes(), mtime=0)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    result = cli("predict", "input=-", f"output={tmp_path}", *mini_overrides)
    assert result.code == 0, result.err
