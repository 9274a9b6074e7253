"""R7, R8: the reads of a pair are told apart, and whatever the names, each record has one of its own."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support import read_table
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.results.origins import UniqueNames
from virnucpro_pl.sequence import records as records_module
from virnucpro_pl.sequence.store import StoreSettings, prepare_store


def fastq(*headers: str) -> str:
    return "".join(f"@{header}\nACGT\n+\nIIII\n" for header in headers)


def named(folder: Path, *files: str) -> tuple[list[str], list[str | None], dict]:
    """Final names and roles of files of these contents, through the store."""
    paths = []
    for number, content in enumerate(files):
        paths.append(folder / f"reads{number}")
        paths[-1].write_text(content)
    store = prepare_store([*map(str, paths)], folder / "store", StoreSettings(300), StageClock())
    manifest = json.loads((store / "manifest.json").read_text())
    names = read_table(store / "records.arrow").column("name").to_pylist()
    return UniqueNames(store, manifest).of(0, names), [source["mates"] for source in manifest["inputs"]], manifest


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
@pytest.mark.parametrize(
    ("headers", "expected", "is_pair"),
    [
        (["x", "x", "y", "y"], ["x/1", "x/2", "y/1", "y/2"], True),
        (["x 1:N:0:AC", "x 2:N:0:AC"], ["x/1", "x/2"], True),
        (["x/1", "x/2"], ["x/1", "x/2"], True),
        (["x/1 1:N:0", "x/2 2:N:0"], ["x/1", "x/2"], True),
        (["x 1:N:0:AC", "x 1:N:0:AC"], ["x", "x_dup2"], False),
        (["x 2:N:0:AC", "x 1:N:0:AC"], ["x", "x_dup2"], False),
        (["x/1", "x/1"], ["x/1", "x/1_dup2"], False),
        (["x/1 2:N:0:", "x/2 1:N:0:"], ["x/1", "x/2"], False),
        (["x", "x", "y"], ["x", "x_dup2", "y"], False),
        (["x", "x", "y", "z"], ["x", "x_dup2", "y", "z"], False),
        (["y", "x", "x", "y"], ["y", "x", "x_dup2", "y_dup2"], False),
        (["", ""], ["", "_dup2"], False),
        (["x", "x", "x", "x"], ["x/1", "x/2", "x/1_dup2", "x/2_dup2"], True),
    ],
)
def test_one_fastq_file(
    tmp_path: Path, monkeypatch, block_bytes: int, headers: list[str], expected, is_pair: bool
) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", block_bytes)
    names, (role,), _ = named(tmp_path, fastq(*headers))
    assert names == expected
    assert role == ("interleaved" if is_pair else None)


@pytest.mark.parametrize(
    ("files", "expected", "roles"),
    [
        ([["a", "b"], ["a", "b"]], ["a", "b", "a_dup2", "b_dup2"], [None, None]),  # one is a copy
        ([["a", "b"], ["a x", "b"]], ["a/1", "b/1", "a/2", "b/2"], ["1", "2"]),
        ([["a 1:N:0:T"], ["a 2:N:0:T"]], ["a/1", "a/2"], ["1", "2"]),
        ([["a 2:N:0:T"], ["a 1:N:0:T"]], ["a/2", "a/1"], ["2", "1"]),
        ([["a/1"], ["a/2"]], ["a/1", "a/2"], ["1", "2"]),
        ([["a 1:N:0:T"], ["a 1:N:0:G"]], ["a", "a_dup2"], [None, None]),
        ([["a 1:N:0:T", "b"], ["a 2:N:0:T", "b"]], ["a", "b", "a_dup2", "b_dup2"], [None, None]),
        ([["a", "b"], ["b", "a"]], ["a", "b", "b_dup2", "a_dup2"], [None, None]),
        ([["a", "b"], ["a"]], ["a", "b", "a_dup2"], [None, None]),
        ([["a"], ["a x"], ["a y"]], ["a/1", "a/2", "a"], ["1", "2", None]),
        ([["c"], ["a"], ["a x"]], ["c", "a/1", "a/2"], [None, "1", "2"]),
        ([["a"], ["a x"], ["b"], ["b x"]], ["a/1", "a/2", "b/1", "b/2"], ["1", "2"] * 2),
        ([["a", "a"], ["a", "a x"]], ["a/1", "a/2", "a/1_dup2", "a/2_dup2"], ["interleaved"] * 2),
        ([[], []], [], [None, None]),
    ],
)
def test_several_fastq_files(tmp_path: Path, files, expected, roles) -> None:
    names, found, _ = named(tmp_path, *(fastq(*headers) for headers in files))
    assert found == roles
    assert names == expected


def test_fasta_is_never_paired(tmp_path: Path) -> None:
    assert named(tmp_path, ">x\nAC\n>x\nAC\n", ">x\nGT\n>x\nGT\n")[:2] == (
        ["x", "x_dup2", "x_dup3", "x_dup4"],
        [None, None],
    )


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([">read1\nA\n>read1\nA\n>read1_1\nA\n"], ["read1", "read1_dup2", "read1_1"]),
        ([">read1\nA\n>read1\nA\n>read1_dup2\nA\n"], ["read1", "read1__dup2", "read1_dup2"]),
        ([fastq("x", "x"), ">x/1\nA\n>x\nA\n"], ["x/1", "x/2", "x/1_dup2", "x"]),
        ([">x/1\nA\n", fastq("x", "x")], ["x/1", "x/1_dup2", "x/2"]),
        ([fastq("x", "x"), ">x/1_dup2\nA\n>x/1\nA\n"], ["x/1", "x/2", "x/1_dup2", "x/1__dup2"]),
        ([fastq("x/1", "x/2"), fastq("x", "x y")], ["x/1", "x/2", "x/1_dup2", "x/2_dup2"]),
    ],
)
def test_names_that_would_collide(tmp_path: Path, files: list[str], expected: list[str]) -> None:
    names, _, manifest = named(tmp_path, *files)
    assert names == expected
    assert manifest["duplicate_names"] == sum("dup" in name for name in names) - sum("dup" in file for file in files)


NAMES = st.sampled_from(["x", "y", "x/1", "x/2", "x_dup2", "x/1_dup2", "x__dup2", "x_1", "/1", "z"])
FILES = st.lists(
    st.tuples(st.sampled_from(["fasta", "fastq", "interleaved", "two files"]), st.lists(NAMES, max_size=5)), max_size=4
)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(FILES)
@example([("interleaved", ["x"]), ("fasta", ["x/1", "x/2", "x/1_dup2"])])
def test_any_names_in_any_pairing_give_unique_names_whose_origin_can_be_told(tmp_path_factory, files) -> None:
    contents, given_names = [], []
    for kind, names in files:
        if kind == "fasta":
            contents.append("".join(f">{name}\nA\n" for name in names))
            given_names += names
        elif kind == "two files":
            contents += [fastq(*names), fastq(*(f"{name} second" for name in names))]
            given_names += names * 2
        else:
            reads = [name for name in names for _ in range(2 if kind == "interleaved" else 1)]
            contents.append(fastq(*reads))
            given_names += reads
    final, roles, manifest = named(tmp_path_factory.mktemp("names"), *contents)

    assert len(set(final)) == len(final) == len(given_names)
    renamed = [name for name in final if manifest["duplicate_suffix"] in name]
    assert len(renamed) >= manifest["duplicate_names"]
    role_of = [role for role, source in zip(roles, manifest["inputs"], strict=True) for _ in range(source["records"])]
    for name, given_name, role in zip(final, given_names, role_of, strict=True):
        origin = name
        head, suffix, number = name.rpartition(manifest["duplicate_suffix"])
        if suffix and number.isdigit():  # no name of the input ends like that
            origin = head
        assert origin == given_name or (role and origin in (f"{given_name}/1", f"{given_name}/2"))
