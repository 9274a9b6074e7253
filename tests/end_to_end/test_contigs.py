"""Rows are rolled up by the record they come from, whatever assemblers call their contigs."""

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from support import CODONS, Result

CHUNK_LENGTH = 300
NODE = re.compile(r"(NODE_\d+)")  # how viral-ngs `classify_contigs` finds the contig of a chunk


def contig(seed: int, length: int) -> str:
    """Bases without a stop codon in the first frame."""
    codons = [codon for synonymous in CODONS.values() for codon in synonymous]
    return "".join(np.random.default_rng(seed).choice(codons, length // 3 + 1))[:length]


NO_ORF = "TAGTTAACTAA" * 80  # stop codons in all six frames


@pytest.fixture
def predict(cli: Callable[..., Result], mini_overrides: list[str], tmp_path: Path) -> Callable[..., Path]:
    def run(*inputs: Path) -> Path:
        names = ",".join(map(str, inputs))
        output = tmp_path / "out"
        result = cli("predict", f"input=[{names}]", f"output={output}", "trainer.accelerator=cpu", *mini_overrides)
        assert result.code == 0, result.err
        return output

    return run


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def grouped(rows: Iterable[dict], key: Callable[[dict], object]) -> dict[object, list[dict]]:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)


def test_contigs_of_several_assemblers_keep_their_own_rows(predict, fasta) -> None:
    """Two files have the same names, one has names without NODE, and one name looks like that of a chunk."""
    files = [
        [("NODE_1_length_500_cov_3.2", 500), ("NODE_2_length_700_cov_1.5_chunk_1", 700)],
        [("NODE_1_length_500_cov_3.2", 500), ("NODE_1_length_910_cov_7.0", 910)],
        [("k141_1 flag=1 multi=2.0 len=640", 640), ("k141_1_chunk_1", 300)],
    ]
    lengths = [length for records in files for _, length in records]
    inputs = []
    for number, records in enumerate(files):
        sequences = [(name, contig(10 * number + i, length)) for i, (name, length) in enumerate(records)]
        inputs.append(fasta(*sequences, name=f"assembly{number}.fasta"))

    output = predict(*inputs)

    records = table(output / "sequences.tsv")
    chunks = grouped(pq.read_table(output / "predictions.parquet").to_pylist(), lambda row: row["record"])
    assert [int(record["length"]) for record in records] == lengths
    assert len({record["sequence_id"] for record in records}) == len(records)
    for record, length in zip(records, lengths, strict=True):
        own = chunks[int(record["record"])]
        assert len(own) == int(record["chunks"]) == -(-length // CHUNK_LENGTH)
        assert {row["sequence_id"] for row in own} == {record["sequence_id"]}
        assert (min(row["start"] for row in own), max(row["end"] for row in own)) == (0, length)
        best = max(row["max_virus_score"] for row in own if row["max_virus_score"] is not None)
        assert float(record["max_virus_score"]) == pytest.approx(best, abs=1e-6)
        assert int(record["viral_chunks"]) == sum(row["call"] == "virus" for row in own)
    chunk_ids = [row["chunk_id"] for own in chunks.values() for row in own]
    assert len(set(chunk_ids)) == len(chunk_ids)
    by_name = grouped(({"node": NODE.search(name)} for name in chunk_ids), lambda row: row["node"] and row["node"][1])
    assert [len(by_name[node]) for node in ("NODE_1", None)] == [8, 4], "three contigs merged, two without any"


def test_names_of_one_spades_assembly_group_as_published(predict, fasta) -> None:
    """Where the published grouping by name is sound, it gives what is in the table of records."""
    contigs = [
        (f"NODE_{n}_length_{length}_cov_2.5", contig(n, length)) for n, length in ((1, 1500), (2, 800), (12, 301))
    ]
    contigs.insert(2, (f"NODE_3_length_{len(NO_ORF)}_cov_9.1", NO_ORF))

    output = predict(fasta(*contigs))

    called = grouped(
        table(output / "prediction_results_highestscore.csv"), lambda row: NODE.search(row["Modified_ID"])[1]
    )
    every = grouped(
        pq.read_table(output / "predictions.parquet").to_pylist(), lambda row: NODE.search(row["chunk_id"])[1]
    )
    records = {NODE.search(row["sequence_id"])[1]: row for row in table(output / "sequences.tsv")}
    assert set(every) == set(records) == {"NODE_1", "NODE_2", "NODE_3", "NODE_12"}
    assert set(called) == set(records) - {"NODE_3"}, "the published table has no row for what has no ORF"
    for node, record in records.items():
        own = called.get(node, [])
        assert len(every[node]) == int(record["chunks"])
        assert len(own) == int(record["called_chunks"])
        assert sum(row["Is_Virus"] == "True" for row in own) == int(record["viral_chunks"])
        if own:
            best = max(float(row["max_score_1"]) for row in own)
            assert float(record["max_virus_score"]) == pytest.approx(best, abs=1e-6)
    assert (records["NODE_3"]["max_virus_score"], records["NODE_3"]["status"]) == ("NA", "no_orf")
