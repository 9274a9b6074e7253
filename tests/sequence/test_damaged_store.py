"""C1, C2: whatever happens to a file of a store, it is noticed before the store is used, and the store is rebuilt."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from virnucpro_pl.errors import DamagedStoreError, UserError
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.sequence.store import (
    OrfStore,
    StoreSettings,
    check_unchanged,
    inputs_of,
    prepare_store,
    stored_at,
)

SETTINGS = StoreSettings(300)
FILES = [
    *(f"{name}.arrow" for name in ("records", "chunks", "orfs")),
    *(f"duplicate_{name}.npy" for name in ("names", "orfs", "proteins")),
    "manifest.json",
    *(
        f"by_length-{kind}/{name}"
        for kind in ("distinct", "all")
        for name in ("rows.npy", "lengths.npy", "manifest.json")
    ),
]


def flip(path: Path, place: float) -> None:
    """Change one bit at a share of the file's length."""
    data = bytearray(path.read_bytes())
    data[min(int(place * len(data)), len(data) - 1)] ^= 4
    path.write_bytes(data)


def zero_the_end(path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, size - 20)
    os.truncate(path, size)


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], None]] = {
    "first bit": lambda path: flip(path, 0),
    "a bit in the middle": lambda path: flip(path, 0.5),
    "a bit of the footer": lambda path: flip(path, 0.97),
    "last bit": lambda path: flip(path, 1),
    "zeroed footer": zero_the_end,
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "removed": Path.unlink,
    "replaced by a folder": replace_by_a_folder,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An input, and the folder of its store, which has been used."""
    folder = tmp_path_factory.mktemp("whole")
    reads = folder / "reads.fa"
    reads.write_text("".join(f">r{n % 9}\n{'GCT' * (n % 7 + 3)}GCA\n" for n in range(40)))
    store = OrfStore(prepare_store([str(reads)], folder / "store", SETTINGS, StageClock()))
    for deduplicate in (True, False):
        store.by_length(deduplicate)
    return reads, store.folder


@pytest.fixture
def damaged_copy(whole: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    reads, store = whole
    return reads, Path(shutil.copytree(store, tmp_path / "store" / store.name))


def content(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_store_is_set_aside_and_rebuilt(
    whole: tuple[Path, Path], damaged_copy: tuple[Path, Path], caplog: pytest.LogCaptureFixture, file: str, damage: str
) -> None:
    if damage == "grown" and file.endswith("manifest.json"):
        return  # JSON with a line end more says the same
    reads, store = damaged_copy
    DAMAGE[damage](store / file)
    with caplog.at_level(logging.WARNING):
        rebuilt = prepare_store([str(reads)], store.parent, SETTINGS, StageClock())
    (warning,) = [record.getMessage() for record in caplog.records]
    assert str(store / file) in warning
    assert "\n" not in warning
    assert "set aside as" in warning
    assert rebuilt == store
    assert OrfStore(store).times_rebuilt() == 1
    for deduplicate in (True, False):
        OrfStore(rebuilt).by_length(deduplicate)
    assert content(rebuilt) == content(whole[1])


def test_an_intact_store_is_used_again_without_a_word(damaged_copy, caplog: pytest.LogCaptureFixture) -> None:
    reads, store = damaged_copy
    before = content(store)
    assert prepare_store([str(reads)], store.parent, SETTINGS, StageClock()) == store
    assert (caplog.records, content(store), OrfStore(store).times_rebuilt()) == ([], before, 0)


def test_a_store_can_be_damaged_more_than_once(damaged_copy) -> None:
    reads, store = damaged_copy
    for times in (1, 2):
        flip(store / "orfs.arrow", 0.5)
        prepare_store([str(reads)], store.parent, SETTINGS, StageClock())
        assert OrfStore(store).times_rebuilt() == times


def test_a_pipe_replaces_the_damaged_store_of_the_same_bytes(damaged_copy, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    reads, store = damaged_copy
    flip(store / "records.arrow", 0.5)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(pipe.write_bytes, reads.read_bytes())
        assert prepare_store([str(pipe)], store.parent, SETTINGS, StageClock()) == store
        written.result()
    check_unchanged(store)
    assert OrfStore(store).times_rebuilt() == 1


@pytest.mark.parametrize("file", FILES)
def test_damage_while_a_run_is_going_is_told_in_one_line(damaged_copy, file: str) -> None:
    """C1: as write_results asks once it has read everything."""
    _, store = damaged_copy
    check_unchanged(store)
    flip(store / file, 0.5)
    with pytest.raises(DamagedStoreError, match=r"no result file is written") as caught:
        check_unchanged(store)
    assert str(store / file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_manifest_cannot_vouch_for_another_file(damaged_copy) -> None:
    """C1: sizes and checksums cannot be swapped within it."""
    import json

    _, store = damaged_copy
    manifest = json.loads((store / "manifest.json").read_text())
    np.save(store / "duplicate_orfs.npy", np.zeros((1, 2), dtype=np.int64))
    manifest["files"]["duplicate_orfs.npy"]["bytes"] = (store / "duplicate_orfs.npy").stat().st_size
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedStoreError, match=r"manifest.json: damaged \(its SHA-256 differs\)"):
        check_unchanged(store)


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "nul\0"])
def test_what_cannot_be_a_path_is_no_store(name: str) -> None:
    """F11: no manifest.json is named where an input is meant."""
    assert not stored_at(Path(name))


def test_a_damaged_manifest_is_told_to_whoever_names_the_folder(damaged_copy) -> None:
    _, store = damaged_copy
    assert len(inputs_of(store) or []) == 1
    assert inputs_of(store.parent) is None
    (store / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match=r"manifest.json: damaged .*run `prepare` again"):
        inputs_of(store)
