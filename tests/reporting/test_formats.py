"""Files for the next tool hold what the result files hold, in that tool's format."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import dnaio
import numpy as np
import pyarrow.parquet as pq
import pytest
from Bio import SeqIO
from Bio.SeqRecord import SeqRecord

from reporting.test_report import records_of
from support import Result, open_genome
from virnucpro_pl.files.output_files import KINDS

Cli = Callable[..., Result]


def test_kraken_rows_tell_call_and_chunks(finished: Path) -> None:
    rows = [line.split("\t") for line in (finished / "kraken.tsv").read_text().splitlines()]
    records = records_of(finished)
    assert [row[1] for row in rows] == [record["sequence_id"] for record in records]
    for (mark, _, taxon, length, hits), record in zip(rows, records, strict=True):
        assert (mark, taxon) == (("C", "10239") if record["call"] == "virus" else ("U", "0"))
        assert length == record["length"]
        counts = {key: int(count) for key, count in (hit.split(":") for hit in hits.split())}
        assert counts.get("10239", 0) == int(record["viral_chunks"])
        assert sum(counts.values()) == int(record["chunks"])


def test_bed_holds_the_viral_chunks_on_the_strand_of_their_best_frame(finished: Path) -> None:
    rows = [line.split("\t") for line in (finished / "viral_chunks.bed").read_text().splitlines()]
    chunks = [row for row in pq.read_table(finished / "predictions.parquet").to_pylist() if row["call"] == "virus"]
    assert len(rows) == len(chunks) > 10
    strands = set()
    for (name, start, end, chunk_id, score, strand), chunk in zip(rows, chunks, strict=True):
        assert (name, int(start), int(end), chunk_id) == tuple(
            chunk[key] for key in ("sequence_id", "start", "end", "chunk_id")
        )
        frames = {
            key[-2:]: value for key, value in chunk.items() if key.startswith("virus_score_") and value is not None
        }
        assert strand == {"F": "+", "R": "-"}[max(frames, key=frames.__getitem__)[0]]
        assert 0 <= int(score) <= 1000
        assert abs(int(score) / 1000 - chunk["max_virus_score"]) <= 0.0005
        strands.add(strand)
    assert strands == {"+", "-"}


def test_multiqc_gets_the_counts_of_every_file(finished: Path) -> None:
    calls = json.loads((finished / "virnucpro_calls_mqc.json").read_text())
    run = json.loads((finished / "run.json").read_text())
    assert calls["data"] == {"in put": run["counts"]["inputs"][0]["calls"]}
    assert "demo model, not for science" in calls["description"]
    general = json.loads((finished / "virnucpro_general_mqc.json").read_text())
    told = run["counts"]["calls"]["records"]
    share = 100 * told["virus"] / (told["virus"] + told["others"])
    assert general["data"]["in put"]["viral_percent"] == pytest.approx(share, abs=1e-3)


def fasta(path: Path) -> list[SeqRecord]:
    with path.open() as stream:
        return list(SeqIO.parse(stream, "fasta"))


def test_every_record_is_in_one_of_three_fasta_files(finished: Path) -> None:
    kinds = {"virus": "viral.fasta", "others": "nonviral.fasta", "NA": "uncalled.fasta"}
    files = {name: {record.id: record for record in fasta(finished / name)} for name in kinds.values()}
    records = records_of(finished)
    assert sum(map(len, files.values())) == len(records)
    given = fasta(finished.parent / "in put.fa")
    for record, source in zip(records, given, strict=True):
        found = files[kinds[record["call"]]][record["sequence_id"]]
        assert str(found.seq) == str(source.seq)
        assert found.description.endswith("more words")


def reads(path: Path, seed: int, count: int = 60) -> None:
    generator = np.random.default_rng(seed)
    with gzip.GzipFile(path, "wb", mtime=0) as packed, io.TextIOWrapper(packed) as stream:
        for number in range(count):
            letters = open_genome(generator, 90) if number % 3 else "TAATTAATTAA" * 5
            stream.write(f"@pair{number} {seed}:N:0\n{letters}\n+\n{chr(40 + number % 30) * len(letters)}\n")


def test_mates_stay_together_with_their_qualities(cli: Cli, tmp_path: Path) -> None:
    paths = [tmp_path / f"r{mate}.fq.gz" for mate in (1, 2)]
    for mate, path in enumerate(paths, start=1):
        reads(path, mate)
    output = tmp_path / "out"
    words = [f"input=[{paths[0]},{paths[1]}]", f"output={output}", "trainer.accelerator=cpu", "formats.fastq=true"]
    result = cli("predict", *words)
    assert result.code == 0, result.err
    calls = {record["sequence_id"]: record["call"] for record in records_of(output)}
    given = {(entry.name, mate): entry for mate, path in enumerate(paths, 1) for entry in dnaio.open(path)}
    seen = {}
    for kind in KINDS:
        first, second = ([*dnaio.open(output / f"{kind}_{mate}.fastq.gz")] for mate in (1, 2))
        assert [one.id for one in first] == [one.id for one in second]
        for mate, entries in ((1, first), (2, second)):
            for entry in entries:
                assert given[entry.name, mate] == entry
                seen[entry.name, mate] = kind
        for entry in first:
            pair = {calls[f"{entry.id}/{mate}"] for mate in (1, 2)}
            assert kind == ("viral" if "virus" in pair else "nonviral" if "others" in pair else "uncalled")
    assert seen.keys() == given.keys()
    assert set(seen.values()) == {"viral", "nonviral", "uncalled"}


def test_interleaved_and_single_reads_are_split_too(cli: Cli, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.fastq"
    reads(tmp_path / "single.fq.gz", 5)
    generator = np.random.default_rng(9)
    entries = [f"@p{n}/{m}\n{open_genome(generator, 90)}\n+\n{'I' * 90}\n" for n in range(20) for m in (1, 2)]
    mixed.write_text("".join(entries))
    output = tmp_path / "out"
    words = [f"input=[{mixed},{tmp_path / 'single.fq.gz'}]", f"output={output}", "trainer.accelerator=cpu"]
    result = cli("predict", *words, "formats.fastq=true")
    assert result.code == 0, result.err
    names = [
        entry.name for kind in ("viral", "nonviral", "uncalled") for entry in dnaio.open(output / f"{kind}.fastq.gz")
    ]
    assert len(names) == 40 + 60
    viral = [
        entry.id for entry in dnaio.open(output / "viral.fastq.gz") if entry.id.startswith("p") and "/" in entry.id
    ]
    assert {name[:-1] + "1" for name in viral} == {name[:-1] + "1" for name in viral if name.endswith("2")}


def test_more_can_be_asked_of_a_finished_run(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "in.fa"
    source.write_text("".join(f">r{n}\n{open_genome(np.random.default_rng(n), 120)}\n" for n in range(20)))
    words = ["predict", f"input={source}", f"output={tmp_path / 'out'}", "trainer.accelerator=cpu"]
    assert cli(*words, "formats.report=false").code == 0
    assert not (tmp_path / "out" / "report.html").exists()
    result = cli(*words, "formats.kraken=true", "formats.nonviral=true")
    assert result.code == 0, result.err
    assert "the missing formats were written" in result.err
    for name in ("report.html", "kraken.tsv", "nonviral.fasta"):
        assert (tmp_path / "out" / name).exists()
    assert "nothing to do" in cli(*words).err
    (tmp_path / "out" / "report.html").unlink()
    assert cli(*words).code == 0
    assert (tmp_path / "out" / "report.html").exists()
    verified = cli("verify", f"output={tmp_path / 'out'}")
    assert verified.code == 0, verified.err
    assert "kraken.tsv" in verified.err
    assert cli(*words, "overwrite=true", "formats.report=false").code == 0
    assert not (tmp_path / "out" / "kraken.tsv").exists()
