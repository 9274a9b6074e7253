"""From genomes to a dataset: which fragments, with which labels, and what a user is told."""

import bz2
import gzip
import lzma
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import CompoundLocation, SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from support import open_genome, read_table
from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence.translation import FRAMES, find_orfs
from virnucpro_pl.training.annotation import annotated_proteins, are_annotated
from virnucpro_pl.training.fragments import Cutter, LengthRange
from virnucpro_pl.training.genomes import annotation_of, read_genomes
from virnucpro_pl.training.labelled_store import LabelledStore
from virnucpro_pl.training.read_errors import ErrorRates, with_errors

_COMPLEMENT = str.maketrans("ACGT", "TGCA")


def table(folder: Path, *rows: str, header: str = "file\tclass\tgroup") -> Path:
    path = folder / "genomes.tsv"
    path.write_text("\n".join(["# a comment", header, *rows]) + "\n", encoding="utf-8")
    return path


# --- what comes out


def test_fragments_are_labelled_and_lie_where_their_names_say(prepared, genomes: Path, tmp_path: Path) -> None:
    result = prepared(f"input={genomes}", "data.chunk_length=120", "data.balance=false")
    assert result.code == 0, result.err
    assert "virus" in result.err
    store = LabelledStore(tmp_path / "dataset")
    records = read_table(tmp_path / "dataset" / "records.arrow")
    sources = {path.stem: str(SeqIO.read(path, "fasta").seq) for path in genomes.glob("*/*.fna")}
    assert len(records) == len(store.labels) > 100
    for name, sequence, label, file in zip(
        records["name"].to_pylist(), records["sequence"].to_pylist(), store.labels, store.column("file"), strict=True
    ):
        accession, place = name.split(":")
        first, last = map(int, place.split("-"))
        assert sources[accession][first - 1 : last] == sequence.decode()
        assert accession.startswith("virus") == bool(label) == file.startswith("virus/")
    assert store.column("group").tolist()[0] == "others0"
    frames = read_table(tmp_path / "dataset" / "orfs.arrow")
    found = find_orfs(records["sequence"][0].as_py(), np.array([len(records["sequence"][0].as_py())]))
    of_first = frames.filter(np.array(frames["record"]) == 0)
    assert of_first["protein"].to_pylist() == found.proteins
    assert store.dataset["counts"]["virus"]["orfs"] == int((store.labels[store.orf_records] == 1).sum())


def test_same_seed_gives_the_same_bytes_and_another_does_not(prepared, genomes: Path, tmp_path: Path) -> None:
    contents = []
    for seed in (1, 1, 2):
        assert prepared(f"input={genomes}", "data.chunk_length=60-120", "data.max_per_genome=5", f"seed={seed}",
                        "overwrite=true").code == 0  # fmt: skip
        contents.append([(tmp_path / "dataset" / name).read_bytes() for name in ("orfs.arrow", "labels.parquet")])
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]
    store = LabelledStore(tmp_path / "dataset")
    names, counts = np.unique(store.column("genome"), return_counts=True)
    assert len(names) == 10
    assert counts.tolist() == [5] * 10
    assert store.lengths.min() >= 60
    assert store.lengths.max() <= 120
    assert len(np.unique(store.lengths)) > 10


def test_classes_are_balanced_by_sampling_the_larger(prepared, tmp_path: Path, genomes: Path) -> None:
    text = (genomes / "virus" / "virus0.fna").read_text()
    (tmp_path / "v.fa").write_text(text)
    big = "".join(path.read_text() for path in sorted((genomes / "others").glob("*")))
    (tmp_path / "o.fa").write_text(big)
    source = table(tmp_path, "v.fa\tviral\tv", "o.fa\tnonviral\to")
    assert prepared(f"input={source}", "data.chunk_length=100").code == 0
    labels = LabelledStore(tmp_path / "dataset").labels
    assert np.bincount(labels).tolist() == [15, 15]


def test_columns_of_the_table_are_carried_along(prepared, genomes: Path, tmp_path: Path) -> None:
    for path in genomes.glob("*/*"):
        (tmp_path / path.name).write_text(path.read_text())
    source = table(
        tmp_path, "virus*.fna\tvirus\tv\tRetroviridae", "others*.fna\tothers\to\t", header="file\tclass\tgroup\tfamily"
    )
    assert prepared(f"input={source}").code == 0
    store = LabelledStore(tmp_path / "dataset")
    assert store.columns == ["genome", "file", "group", "family"]
    assert set(store.column("family")[store.labels == 1]) == {"Retroviridae"}
    assert set(store.column("family")[store.labels == 0]) == {""}
    labels = pq.read_table(tmp_path / "dataset" / "labels.parquet")
    assert labels["length"].to_pylist() == store.lengths.tolist()


def test_a_genome_and_its_reverse_complement_give_the_same_orfs() -> None:
    rng = np.random.default_rng(3)
    letters = "".join(rng.choice(list("ACGT"), 50))
    found = []
    for text in (letters, letters[::-1].translate(_COMPLEMENT)):
        orfs = find_orfs(text.encode(), np.array([50]))
        found.append(sorted(zip(orfs.nucleotides, orfs.proteins, strict=True)))
    assert found[0] == found[1]
    assert found[0]


def test_whole_chunks_have_no_protein(prepared, genomes: Path, tmp_path: Path) -> None:
    assert prepared(f"input={genomes}", "data.rule=chunks", "data.chunk_length=100").code == 0
    orfs = read_table(tmp_path / "dataset" / "orfs.arrow")
    records = read_table(tmp_path / "dataset" / "records.arrow")
    assert orfs["nucleotides"].to_pylist() == records["sequence"].to_pylist()
    assert set(orfs["protein"].to_pylist()) == {b""}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 900), st.integers(3, 40), st.integers(0, 60), st.integers(1, 3), st.integers(0, 9))
def test_fragments_lie_within_the_record_and_have_the_lengths_asked_for(length, shortest, more, depth, seed) -> None:
    fragments = Cutter(LengthRange(shortest, shortest + more), "even", depth, seed).cut("f", "n", length)
    sizes = fragments.end - fragments.start
    assert (fragments.start >= 0).all()
    assert (fragments.end <= length).all()
    assert (sizes <= shortest + more).all()
    if more:
        assert (sizes >= shortest).all()


# --- read errors


def test_rates_of_read_errors_are_kept() -> None:
    letters = b"ACGT" * 25_000
    read = with_errors(letters, ErrorRates(substitutions=0.1), np.random.default_rng(0))
    changed = np.mean(np.frombuffer(read, np.uint8) != np.frombuffer(letters, np.uint8))
    assert changed == pytest.approx(0.1, abs=0.005)
    assert len(with_errors(letters, ErrorRates(insertions=0.1), np.random.default_rng(0))) == pytest.approx(
        110_000, rel=0.01
    )
    assert len(with_errors(letters, ErrorRates(deletions=0.1), np.random.default_rng(0))) == pytest.approx(
        90_000, rel=0.01
    )
    assert with_errors(b"acgt", ErrorRates(), np.random.default_rng(0)) == b"ACGT"


# --- the published rule


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("KLM", min_size=1, max_size=5)), st.lists(st.text("KLM", min_size=0, max_size=12)))
def test_parts_of_proteins_are_those_that_plain_search_finds(frames: list[str], proteins: list[str]) -> None:
    found = are_annotated([frame.encode() for frame in frames], "*".join(proteins))
    assert found.tolist() == [any(frame in protein for protein in proteins) for frame in frames]


def annotated_genome(folder: Path, name: str, letters: str, locations: list) -> None:
    record = SeqRecord(Seq(letters), id=f"{name}.1", name=name, annotations={"molecule_type": "DNA"})
    for location in locations:
        protein = str(location.extract(record.seq).translate())
        record.features.append(SeqFeature(location, type="CDS", qualifiers={"translation": [protein]}))
    SeqIO.write([record], folder / f"{name}.genomic.gbff", "genbank")
    record.features = []
    SeqIO.write([record], folder / f"{name}.1.genomic.fna", "fasta")


def test_published_rule_keeps_frames_of_annotated_proteins_of_the_same_record(prepared, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    coding = {name: open_genome(rng, 600) for name in ("aa", "bb")}
    forward = [SimpleLocation(0, 300, 1), SimpleLocation(330, 600, -1)]
    spliced = [CompoundLocation([SimpleLocation(0, 99, 1), SimpleLocation(201, 300, 1)])]
    annotated_genome(tmp_path, "aa", coding["aa"], forward)
    annotated_genome(tmp_path, "bb", coding["bb"], spliced)
    ambiguous = coding["bb"][:50] + "N" + coding["bb"][51:]
    annotated_genome(tmp_path, "cc", ambiguous, forward)
    source = table(tmp_path, "aa.1.genomic.fna\tvirus\ta", "bb.1.genomic.fna\tothers\tb", "cc.1.genomic.fna\tvirus\tc")
    result = prepared(f"input={source}", "data.rule=annotated", "data.chunk_length=60", "data.balance=false")
    assert result.code == 0, result.err
    store = LabelledStore(tmp_path / "dataset")
    orfs = read_table(tmp_path / "dataset" / "orfs.arrow")
    names = read_table(tmp_path / "dataset" / "records.arrow")["name"].to_pylist()
    kept = {
        (names[record], FRAMES[frame]): protein.decode()
        for record, frame, protein in zip(
            orfs["record"].to_pylist(), orfs["frame"].to_pylist(), orfs["protein"].to_pylist(), strict=True
        )
    }
    proteins = {
        name: [str(location.extract(Seq(text)).translate()) for location in locations]
        for name, text, locations in (
            ("aa.1", coding["aa"], forward), ("bb.1", coding["bb"], spliced), ("cc.1", ambiguous, forward)
        )
    }  # fmt: skip
    expected = {}
    for name, text in (("aa.1", coding["aa"]), ("bb.1", coding["bb"]), ("cc.1", ambiguous)):
        for start in range(0, 600, 60):
            chunk = text[start : start + 60]
            if "N" in chunk:
                continue
            found = find_orfs(chunk.encode(), np.array([60]))
            for frame, protein in zip(found.frame.tolist(), found.proteins, strict=True):
                if any(protein.decode() in one for one in proteins[name]):
                    expected[f"{name}:{start + 1}-{start + 60}", FRAMES[frame]] = protein.decode()
    assert kept == expected
    assert {frame[0] for _, frame in kept} == {"F", "R"}
    assert store.dataset["counts"]["virus"]["ambiguous"] == 1
    assert annotated_proteins(tmp_path / "aa.genomic.gbff")["aa.1"].count("*") >= 1


def test_genbank_files_that_lack_letters_are_refused(tmp_path: Path, prepared) -> None:
    """Biopython only warns of them."""
    annotated_genome(tmp_path, "aa", open_genome(np.random.default_rng(1), 600), [SimpleLocation(0, 300, 1)])
    file = tmp_path / "aa.genomic.gbff"
    lines = file.read_text().splitlines(keepends=True)
    origin = next(number for number, line in enumerate(lines) if line.startswith("ORIGIN"))
    for damaged in (lines[: origin + 4], [*lines[: origin + 2], *lines[origin + 3 :]], lines[:-1]):
        file.write_text("".join(damaged))
        with pytest.raises(UserError, match="incomplete or damaged"):
            annotated_proteins(file)
        source = table(tmp_path, "aa.genomic.gbff\tvirus\ta", "aa.1.genomic.fna\tothers\tb")
        result = prepared(f"input={source}", "data.chunk_length=60", "data.balance=false")
        assert result.code == 2
        assert "aa.genomic.gbff: incomplete or damaged" in result.err


def test_annotation_that_lacks_records_is_warned_of(tmp_path: Path, prepared) -> None:
    rng = np.random.default_rng(1)
    for name in ("aa", "bb"):
        annotated_genome(tmp_path, name, open_genome(rng, 600), [SimpleLocation(0, 300, 1)])
    both = tmp_path / "aa.1.genomic.fna"
    both.write_text(both.read_text() + (tmp_path / "bb.1.genomic.fna").read_text())
    source = table(tmp_path, "aa.1.genomic.fna\tvirus\ta", "bb.1.genomic.fna\tothers\tb")
    words = [f"input={source}", "data.rule=annotated", "data.chunk_length=60", "data.balance=false"]
    result = prepared(*words)
    assert result.code == 0, result.err
    assert "aa.genomic.gbff: has 1 of the 2 records of " in result.err
    (tmp_path / "bb.genomic.gbff").write_text((tmp_path / "aa.genomic.gbff").read_text())
    result = prepared(*words, "overwrite=true")
    assert (result.code, "bb.genomic.gbff: has 0 of the 1 records" in result.err) == (2, True)


def test_annotation_is_found_beside_a_genome_as_refseq_names_it(tmp_path: Path) -> None:
    for name in (
        "viral.1.1.genomic.fna.gz",
        "viral.1.genomic.gbff.gz",
        "GCF_1.2_x_genomic.fna",
        "GCF_1.2_x_genomic.gbff",
    ):
        (tmp_path / name).touch()
    assert annotation_of(tmp_path / "viral.1.1.genomic.fna.gz") == tmp_path / "viral.1.genomic.gbff.gz"
    assert annotation_of(tmp_path / "GCF_1.2_x_genomic.fna") == tmp_path / "GCF_1.2_x_genomic.gbff"
    assert annotation_of(tmp_path / "none.fna") is None


def test_files_of_one_name_are_groups_of_their_own(tmp_path: Path) -> None:
    for name in ("virus/genomes.fa", "others/genomes.fa", "others/plasmids.fa", "others/plasmids.fna"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f">{name}\nACGT\n")
    groups = {genome.file: genome.group for genome in read_genomes(tmp_path)}
    assert groups == {name: name for name in groups}
    (tmp_path / "others" / "genomes.fa").rename(tmp_path / "others" / "hosts.fa")
    assert {genome.group for genome in read_genomes(tmp_path)} >= {"genomes", "hosts"}


LINE_ENDS_OF_PYTHON = ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85"]
"""What ``str.splitlines`` splits at and no other program that reads tables"""


@pytest.mark.parametrize("letter", LINE_ENDS_OF_PYTHON)
@pytest.mark.parametrize("column", ["group", "family"])
def test_a_cell_of_a_table_may_hold_any_letter_but_tab_and_line_end(tmp_path: Path, column: str, letter: str) -> None:
    """Kind: text taken apart at what is no separator (table_vt.tsv)."""
    for name in ("v.fa", "o.fa"):
        (tmp_path / name).write_text(">x\nACGT\n")
    cell = f"A{letter}B"
    source = table(
        tmp_path,
        f"v.fa\tvirus\t{cell if column == 'group' else 'v'}\t{cell}",
        "o.fa\tothers\to\tC",
        header="file\tclass\tgroup\tfamily",
    )
    virus, _ = read_genomes(source)
    assert virus.columns["family"] == cell
    assert virus.group == (cell if column == "group" else "v")


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": partial(gzip.compress, mtime=0x09),
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
def test_tables_and_annotation_are_told_by_content_not_by_name(tmp_path: Path, packed: str, ending: str) -> None:
    """Kind: anything decided from the raw bytes of a compressed file, or from its name (A1)."""
    for name in ("v.fa", "o.fa"):
        (tmp_path / name).write_text(">x\nACGT\n")
    text = table(tmp_path, "v.fa\tvirus\tv", "o.fa\tothers\to").read_bytes()
    for content in (text, b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"), text.removesuffix(b"\n")):
        (tmp_path / f"table.tsv{ending}").write_bytes(PACKED[packed](content))
        found = read_genomes(tmp_path / f"table.tsv{ending}")
        assert [(genome.file, genome.label, genome.group) for genome in found] == [("v.fa", 1, "v"), ("o.fa", 0, "o")]
    annotation = tmp_path / f"x.gbff{ending}"
    annotated_genome(tmp_path, "aa", "ATGAAAGTT", [SimpleLocation(0, 9, 1)])
    annotation.write_bytes(PACKED[packed]((tmp_path / "aa.genomic.gbff").read_bytes()))
    assert annotated_proteins(annotation) == {"aa.1": "MKV"}


# --- mistakes


@pytest.mark.parametrize(
    ("rows", "header", "told"),
    [
        (["v.fa\tvirus\tv"], "file\tclass\tgroup", "no file of class others"),
        (["v.fa\tvirus\tv", "o.fa\tplant\to"], "file\tclass\tgroup", "line 4: class 'plant' is unknown"),
        (["v.fa\tvirus\tv", "x.fa\tothers\to"], "file\tclass\tgroup", "line 4: x.fa: no such file"),
        (["v.fa\tvirus\tv", "v.fa\tothers\to"], "file\tclass\tgroup", "v.fa is named twice"),
        (["v.fa\tvirus\t", "o.fa\tothers\to"], "file\tclass\tgroup", "line 3: group is empty"),
        (["v.fa\tvirus"], "file\tclass", "has no column group"),
        (["v.fa\tvirus\tv\tx", "o.fa\tothers\to"], "file\tclass\tgroup", "line 3 has 4 columns"),
    ],
)
def test_mistakes_in_the_table_are_told_with_their_line(tmp_path: Path, rows, header, told) -> None:
    for name in ("v.fa", "o.fa"):
        (tmp_path / name).write_text(">x\nACGT\n")
    with pytest.raises(UserError, match=told):
        read_genomes(table(tmp_path, *rows, header=header))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.chunk_length=500-150", "the shorter length comes first"),
        ("data.chunk_length=x", "give a number of bases, or a range"),
        ("data.rule=best", "choose one of orfs, annotated, chunks"),
        ("data.rule=annotated", "has no GenBank file beside it"),
        ("data.errors.deletions=0.9", "data.errors.deletions=0.9"),
        ("data.max_per_group=0", "data.max_per_group=0"),
        ("data.depth=0", "data.depth=0"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(prepared, genomes: Path, tmp_path: Path, override, told) -> None:
    result = prepared(f"input={genomes}", override)
    assert result.code == 2
    (line,) = [line for line in result.err.splitlines() if line.startswith("Error")]
    assert told in line
    assert not (tmp_path / "dataset" / "dataset.json").exists()


def test_a_finished_dataset_and_other_files_are_not_replaced(prepared, genomes: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.txt").write_text("x")
    assert "holds mine.txt, which is not part of a dataset" in prepared(f"input={genomes}").err
    assert (tmp_path / "dataset" / "mine.txt").exists()
    (tmp_path / "dataset" / "mine.txt").unlink()
    assert prepared(f"input={genomes}").code == 0
    assert "holds a finished dataset" in prepared(f"input={genomes}").err


@pytest.mark.parametrize(
    "content", [b">x\nACGT\n", gzip.compress(b"LOCUS       x\n" * 999, mtime=0)[:-20]], ids=["FASTA", "cut short"]
)
def test_a_damaged_genbank_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.gbff"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.gbff"):
        annotated_proteins(path)


def test_what_is_no_dataset_is_told(tmp_path: Path, dataset: Path) -> None:
    with pytest.raises(UserError, match="not a dataset"):
        LabelledStore(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    labels = pq.read_table(copy / "labels.parquet")
    pq.write_table(labels.slice(0, 3), copy / "labels.parquet")
    with pytest.raises(UserError, match="does not label every record"):
        LabelledStore(copy)
