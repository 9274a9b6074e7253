"""The store as its readers see it: rows, counts, and when it is built."""

import gzip
import io
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import file_name, read_table
from virnucpro_pl.errors import UserError
from virnucpro_pl.host.stage_clock import CHUNKING, PLANNING, TRANSLATION, StageClock
from virnucpro_pl.sequence import builder
from virnucpro_pl.sequence import records as records_module
from virnucpro_pl.sequence.store import STATUSES, OrfStore, StoreSettings, prepare_store
from virnucpro_pl.sequence.translation import FRAMES

ODD_RECORDS = [
    ("good", "GCT" * 120),
    ("empty", ""),
    ("two", "GC"),
    ("unknown", "N" * 700),
    ("stops", "TTAATTAATTAA" * 30),
    ("good", "GCT" * 100),
]


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., OrfStore]:
    def build(*inputs: Path | str, **settings) -> OrfStore:
        paths = [str(path) for path in inputs]
        return OrfStore(
            prepare_store(paths, tmp_path / "store", StoreSettings(**{"chunk_length": 300, **settings}), StageClock())
        )

    return build


def table(store: OrfStore, name: str) -> list[dict]:
    return read_table(store.folder / f"{name}.arrow").to_pylist()


def statuses(store: OrfStore, name: str) -> list[str]:
    return [STATUSES[row["status"]] for row in table(store, name)]


def as_published(store: OrfStore) -> tuple[str, str, str]:
    """The published tool's three text files: chunks, nucleotides and proteins of the ORFs."""
    records, chunks, orfs = (table(store, name) for name in ("records", "chunks", "orfs"))
    ids, chunked = [], ""
    for chunk in chunks:
        record = records[chunk["record"]]
        ids.append(f">{record['name']}_chunk_{chunk['number']}")
        letters = record["sequence"].decode()[chunk["start"] : chunk["end"]]
        chunked += "\n".join([ids[-1], *(letters[i : i + 60] for i in range(0, len(letters), 60))]) + "\n"
    texts = ["".join(f"{ids[o['chunk']]}{FRAMES[o['frame']]}\n{o[side].decode()}\n" for o in orfs)
             for side in ("nucleotides", "protein")]  # fmt: skip
    return chunked, *texts


def check_recorded_cases(golden: Path, build: Callable[..., OrfStore]) -> int:
    compared = 0
    for folder in sorted((golden / "expected").iterdir()):
        run = json.loads((folder / "run.json").read_text())
        source = golden / "inputs" / run["input"]
        if (folder / "identified_protein.faa").exists() and source.exists():
            found = as_published(build(source, chunk_length=int(run["chunk"])))
            for name, text in zip(
                ("chunked.fa", "identified_nucleotide.fa", "identified_protein.faa"), found, strict=True
            ):
                assert text.encode() == (folder / name).read_bytes(), f"{folder.name}/{name}"
            compared += 1
    return compared


def test_recorded_cases(golden, build) -> None:
    assert check_recorded_cases(golden, build) > 30


def test_recorded_mini_cases(mini, build) -> None:
    assert check_recorded_cases(mini, build) > 5


def test_every_record_and_chunk_has_a_status(fasta, build) -> None:
    store = build(fasta(*ODD_RECORDS))
    expected = ["called", "empty", "too_short", "ambiguous_only", "no_orf", "called"]
    assert statuses(store, "records") == expected
    assert [record["chunks"] for record in table(store, "records")] == [2, 0, 1, 3, 2, 1]
    assert statuses(store, "chunks") == ["called"] * 2 + ["too_short"] + ["ambiguous_only"] * 3 + ["no_orf"] * 2 + [
        "called"
    ]
    manifest = store.manifest
    counts = {"called": 2, "no_orf": 1, "ambiguous_only": 1, "too_short": 1, "empty": 1}
    assert manifest["record_status"] == {**dict.fromkeys(STATUSES, 0), **counts}
    assert sum(manifest["chunk_status"].values()) == manifest["chunks"] == 9
    assert manifest["bases"] == sum(len(sequence) for _, sequence in ODD_RECORDS)


def test_counts_add_up_on_every_recorded_input(golden, build) -> None:
    refused = set()
    for path in sorted((golden / "inputs").iterdir()):
        try:
            store = build(path)
        except UserError:
            refused.add(path.name)
            continue
        records, chunks, orfs = (table(store, name) for name in ("records", "chunks", "orfs"))
        manifest = store.manifest
        assert (manifest["records"], manifest["chunks"], manifest["orfs"]) == (len(records), len(chunks), len(orfs))
        assert sum(manifest["record_status"].values()) == len(records) == sum(i["records"] for i in manifest["inputs"])
        assert sum(record["chunks"] for record in records) == len(chunks)
        assert sum(chunk["orfs"] for chunk in chunks) == len(orfs) == store.num_orfs
    assert refused == {"leading_text.fa", "no_header.fa", "nonascii_seq.fa"}


def test_a_record_has_the_best_status_of_its_chunks(fasta, build) -> None:
    store = build(fasta(("mixed", "N" * 300 + "TTAATTAATTAA" * 25)), chunking="even")
    assert statuses(store, "chunks") == ["ambiguous_only", "no_orf"]
    assert statuses(store, "records") == ["no_orf"]


def test_an_empty_file_gives_an_empty_store(fasta, build) -> None:
    store = build(fasta())
    assert [table(store, name) for name in ("records", "chunks", "orfs")] == [[], [], []]
    assert store.num_orfs == store.manifest["records"] == 0
    assert store.nucleotides.lengths(0, 0).tolist() == []
    assert store.proteins.take(np.empty(0, dtype=np.int64)) == []
    assert store.duplicate_orfs().shape == (0, 2)


sequences = st.lists(st.text("ACGTNacgt", max_size=80), max_size=8)


@settings(deadline=None, max_examples=40)
@given(sequences, st.integers(3, 30), st.sampled_from([1, 17, 64]))
def test_the_rows_do_not_depend_on_the_block_size(tmp_path_factory, sequences, chunk_length, block_bytes) -> None:
    folder = tmp_path_factory.mktemp("blocks")
    path = folder / "input.fa"
    path.write_text("".join(f">r{i} x\n{sequence}\n" for i, sequence in enumerate(sequences)))
    stores = []
    for size in (1 << 20, block_bytes):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(records_module, "BLOCK_BYTES", size)
            patch.setattr(builder, "BLOCK_BYTES", size)
            settings = StoreSettings(chunk_length)
            stores.append(OrfStore(prepare_store([str(path)], folder / str(size), settings, StageClock())))
    for name in ("records", "chunks", "orfs"):
        assert table(stores[0], name) == table(stores[1], name)
    manifests = [{**store.manifest, "files": None} for store in stores]  # Arrow files depend on it in size
    assert manifests[0] == manifests[1]
    assert np.array_equal(stores[0].duplicate_orfs(), stores[1].duplicate_orfs())


def test_columns_give_any_rows_in_any_order(fasta, build, monkeypatch) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 64)  # many batches
    store = build(fasta(*((f"r{i}", "GCT" * (i + 1)) for i in range(20))))
    orfs = table(store, "orfs")
    rows = np.random.default_rng(0).permutation(len(orfs))
    assert store.nucleotides.take(rows) == [orfs[row]["nucleotides"] for row in rows]
    assert store.proteins.take(rows) == [orfs[row]["protein"] for row in rows]
    lengths = [len(orf["protein"]) for orf in orfs]
    for start, end in ((0, len(orfs)), (5, 6), (7, len(orfs) - 3), (9, 9)):
        assert store.proteins.lengths(start, end).tolist() == lengths[start:end]
    assert pickle.loads(pickle.dumps(store)).proteins.take(rows[:3]) == store.proteins.take(rows[:3])


def test_repeated_orfs_point_to_the_first(fasta, build) -> None:
    store = build(fasta(("a", "GCTGCTGCT"), ("b", "GCAGCAGCA"), ("c", "gctgctgct")))
    orfs = [(orf["nucleotides"], orf["protein"]) for orf in table(store, "orfs")]
    found = dict(store.duplicate_orfs()[:].tolist())
    assert found == {i: orfs.index(orf) for i, orf in enumerate(orfs) if orfs.index(orf) != i}
    assert store.manifest["unique_orfs"] == len(set(orfs)) < len(orfs)


def test_repeated_proteins_point_to_the_first_orf_that_has_them(fasta, build) -> None:
    store = build(
        fasta(("a", "GCTGCTGCT"), ("synonymous", "GCAGCGGCC"), ("a base more", "GCTGCTGCTA"), ("a again", "gctgctgct"))
    )
    proteins = [orf["protein"] for orf in table(store, "orfs")]
    found = dict(store.duplicate_proteins()[:].tolist())
    assert found == {i: proteins.index(protein) for i, protein in enumerate(proteins) if proteins.index(protein) != i}
    assert len(found) > len(store.duplicate_orfs()) > 0


def test_orfs_of_equal_nucleotides_but_other_proteins_are_both_kept(fasta, build) -> None:
    # Published: the first 3P + 1 bases, whichever codons were dropped.
    store = build(fasta(("a", "NNNNNNGCTAAA"), ("b", "NNNNNNGCTCCC")))
    orfs = [(orf["nucleotides"], orf["protein"]) for orf in table(store, "orfs")]
    assert len({nucleotides for nucleotides, _ in orfs}) < len(set(orfs)) == store.manifest["unique_orfs"]


def test_renamed_duplicates_collide_with_no_other_name(fasta, build) -> None:
    names = ["x", "x", "x_dup2", "y", "x__dup3", "x", "x_dupe", ""]
    store = build(fasta(*((name, "GCT" * 9) for name in names)))
    duplicates = np.load(store.folder / "duplicate_names.npy")
    assert duplicates.tolist() == [[1, 2], [5, 3]]
    assert store.manifest["duplicate_names"] == 2
    renamed = [f"x{store.manifest['duplicate_suffix']}{number}" for number in (2, 3)]
    assert not {*renamed} & {*names}


def test_plain_names_get_the_plain_suffix(fasta, build) -> None:
    assert build(fasta(("x_dupe", "A"), ("a_dup2_b", "A"), ("dup3", "A"))).manifest["duplicate_suffix"] == "_dup"


def test_several_inputs_follow_each_other(fasta, build) -> None:
    first, second = fasta(("a", "GCT"), name="1.fa"), fasta(("b", "GCA"), ("c", "GCC"), name="2.fa")
    store = build(second, first)
    assert [record["name"] for record in table(store, "records")] == ["b", "c", "a"]
    assert [source["records"] for source in store.manifest["inputs"]] == [2, 1]
    assert [orf["record"] for orf in table(store, "orfs")] == [0, 0, 1, 1, 2, 2]


def test_standard_input(fasta, build, monkeypatch) -> None:
    path = fasta(*ODD_RECORDS)
    expected = table(build(path), "records")
    for _ in range(2):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(path.read_bytes(), mtime=0))))
        assert table(build("-"), "records") == expected


def test_a_store_is_built_once(fasta, build) -> None:
    path = fasta(("a", "GCTGCTGCT"))
    store = build(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr("virnucpro_pl.sequence.store.StoreBuilder")
        assert build(path).folder == store.folder
    others = [build(path, chunk_length=500), build(path, chunking="even"), build(path, ambiguity="resolved")]
    path.write_text(">a\nGCTGCTGCA\n")
    others.append(build(path))
    assert len({store.folder, *(other.folder for other in others)}) == 5
    assert table(others[-1], "records")[0]["sequence"] == b"GCTGCTGCA"


def test_a_pipe_is_read_once(tmp_path: Path, fasta, build) -> None:
    import os

    build(fasta(("a", "GCT")))  # so that there is a store to compare with
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(pipe.write_text, ">b\nGCAGCA\n")
        assert [record["name"] for record in table(build(pipe), "records")] == ["b"]
        written.result()


def test_builders_at_the_same_time_agree(fasta, build) -> None:
    path = fasta(*ODD_RECORDS)
    with ThreadPoolExecutor(4) as pool:
        stores = [*pool.map(lambda _: build(path), range(8))]
    assert len({store.folder for store in stores}) == 1
    assert [path for path in stores[0].folder.parent.iterdir() if path.is_dir()] == [stores[0].folder]


def test_a_store_without_manifest_is_replaced(fasta, build) -> None:
    path = fasta(("a", "GCTGCT"))
    store = build(path)
    (store.folder / "manifest.json").unlink()
    assert build(path).manifest["records"] == 1


def test_nothing_stays_behind_a_failure(tmp_path: Path, build) -> None:
    path = tmp_path / "cut.fa.gz"
    path.write_bytes(gzip.compress(b">a\n" + b"GCT" * 10_000 + b"\n", mtime=0)[:-9])
    with pytest.raises(UserError, match="truncated"):
        build(path)
    assert [*(tmp_path / "store").iterdir()] == []


def test_nothing_is_written_beside_the_input(tmp_path: Path, build, fasta) -> None:
    source = tmp_path / "run.fa.dir" / "nucleotide output_"
    source.mkdir(parents=True)
    path = source / file_name("reads é.fasta.gz")
    path.write_bytes(gzip.compress(fasta(*ODD_RECORDS).read_bytes(), mtime=0))
    source.chmod(0o555)
    assert build(path).manifest["records"] == len(ODD_RECORDS)
    assert [*source.iterdir()] == [path]


def test_a_folder_that_cannot_hold_a_store_is_named(tmp_path: Path, fasta) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/store: Not a directory") as caught:
        prepare_store([str(fasta(("a", "A")))], tmp_path / "file" / "store", StoreSettings(300), StageClock())
    assert "\n" not in str(caught.value)


def test_impossible_settings_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="chunk_length=1"):
        prepare_store(["missing"], tmp_path / "store", StoreSettings(1), StageClock())
    assert not (tmp_path / "store").exists()


def test_the_clock_knows_the_stages(tmp_path: Path, fasta) -> None:
    clock = StageClock()
    prepare_store([str(fasta(*ODD_RECORDS))], tmp_path, StoreSettings(300), clock)
    assert {stage for stage, seconds in clock.seconds().items() if seconds} == {CHUNKING, TRANSLATION, PLANNING}


def test_chunks_longer_than_a_block(fasta, build, monkeypatch) -> None:
    monkeypatch.setattr(builder, "BLOCK_BYTES", 10)
    store = build(fasta(("a", "GCT" * 40), ("b", "GC"), ("c", "GCT" * 40)))
    assert [chunk["end"] for chunk in table(store, "chunks")] == [120, 2, 120]
    assert statuses(store, "records") == ["called", "too_short", "called"]
