"""Groups stay together, and nobody is on both sides."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from virnucpro_pl.errors import UserError
from virnucpro_pl.files.output_files import SPLIT_FILE
from virnucpro_pl.sequence.seal import read_sealed, write_sealed
from virnucpro_pl.training.labelled_store import LabelledStore
from virnucpro_pl.training.splits import (
    NO_PART,
    PARTS,
    TEST,
    TRAIN,
    VALIDATION,
    SplitSettings,
    apply_split,
    split_again,
    split_records,
)


def relabelled(dataset: Path, folder: Path, **columns: list[str]) -> LabelledStore:
    """A copy of a dataset with other or more columns."""
    shutil.copytree(dataset, folder)
    labels = pq.read_table(folder / "labels.parquet")
    for name, values in columns.items():
        column = pa.array(values, pa.string())
        at = labels.column_names.index(name) if name in labels.column_names else None
        labels = labels.append_column(name, column) if at is None else labels.set_column(at, name, column)
    pq.write_table(labels, folder / "labels.parquet")
    content = read_sealed(folder / "dataset.json")
    content["columns"] = list(dict.fromkeys([*content["columns"], *columns]))
    write_sealed(folder / "dataset.json", content)
    return LabelledStore(folder)


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together_and_every_part_has_both_classes(dataset: Path, seed: int) -> None:
    store = LabelledStore(dataset)
    split = split_records(store, SplitSettings(validation=0.2, test=0.2), seed)
    assert split.by == "group"
    assert not split.leaks
    for group in np.unique(store.column("group")):
        assert len(set(split.parts[store.column("group") == group].tolist())) == 1
    for part in (TRAIN, VALIDATION, TEST):
        assert set(store.labels[split.parts == part].tolist()) == {0, 1}
    assert len(split.groups["train"]) == 6
    again = split_records(store, SplitSettings(validation=0.2, test=0.2), seed)
    assert (again.parts == split.parts).all()


def test_family_is_preferred_where_it_can_be_split_and_an_explicit_split_wins(dataset: Path, tmp_path: Path) -> None:
    groups = LabelledStore(dataset).column("group").tolist()
    families = relabelled(dataset, tmp_path / "a", family=[f"family of {group}" for group in groups])
    assert split_records(families, SplitSettings(), 0).by == "family"
    one_family = relabelled(dataset, tmp_path / "b", family=["x"] * len(groups))
    assert split_records(one_family, SplitSettings(), 0).by == "group"
    parts = [{"0": "train", "1": "validation", "2": "test"}.get(group[-1], "") for group in groups]
    explicit = split_records(relabelled(dataset, tmp_path / "c", split=parts), SplitSettings(), 0)
    assert [PARTS[part] if part != NO_PART else "" for part in explicit.parts] == parts


def test_random_split_is_labelled_as_leaking_and_can_be_made_again(dataset: Path) -> None:
    store = LabelledStore(dataset)
    settings = SplitSettings(by="random", validation=0.1, test=0.0)
    split = split_records(store, settings, 7)
    assert split.leaks
    assert np.bincount(split.parts).tolist() == [len(store.labels) - 15, 15]
    again = split_again(store, {"split": {"_target_": "x", **settings._asdict()}, "seed": 7})
    assert (again.parts == split.parts).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_the_same_sequence_in_two_parts_is_refused_on_either_strand_or_dropped(dataset, tmp_path, reverse) -> None:
    from virnucpro_pl.host.stage_clock import StageClock
    from virnucpro_pl.sequence.builder import StoreBuilder
    from virnucpro_pl.sequence.layout import StoreSettings
    from virnucpro_pl.sequence.records import read_records

    folder = tmp_path / "leaking"
    store = LabelledStore(dataset)
    sequences = [
        sequence
        for batch in pa.ipc.open_file(pa.OSFile(str(dataset / "records.arrow"))).read_all().to_batches()
        for sequence in batch.column("sequence").to_pylist()
    ]
    groups = store.column("group")
    (there,) = np.flatnonzero(groups == "virus1")[:1]
    (here,) = np.flatnonzero(groups == "virus2")[:1]
    copy = sequences[there]
    sequences[here] = copy[::-1].translate(bytes.maketrans(b"ACGT", b"TGCA")) if reverse else copy.lower()
    fasta = tmp_path / "x.fa"
    fasta.write_text("".join(f">r{number}\n{one.decode()}\n" for number, one in enumerate(sequences)))
    folder.mkdir()
    builder = StoreBuilder(folder, StoreSettings(100), StageClock())
    for block in read_records(str(fasta)):
        builder.append(block)
    builder.finish([{"path": "x.fa", "sha256": "x", "records": len(sequences), "mates": None}])
    for name in ("labels.parquet", "dataset.json"):
        shutil.copy(dataset / name, folder / name)
    leaking = LabelledStore(folder)
    seed = next(  # one that puts the two groups into different parts
        seed for seed in range(99)
        if len({split_records(store, SplitSettings(), seed).parts[row] for row in (here, there)}) == 2
    )  # fmt: skip
    with pytest.raises(UserError, match=r"in two splits: r\d+ of virus\d .* and r\d+ of virus\d"):
        split_records(leaking, SplitSettings(), seed)
    dropped = split_records(leaking, SplitSettings(shared="drop"), seed)
    assert dropped.num_dropped == 1
    assert sorted(dropped.parts[[here, there]])[0] == NO_PART


def test_a_split_is_applied_to_other_datasets_by_the_names_of_groups(dataset: Path, tmp_path: Path) -> None:
    store = LabelledStore(dataset)
    split = split_records(store, SplitSettings(), 3)
    split.save(tmp_path, 3)
    assert (apply_split(store, tmp_path / SPLIT_FILE).parts == split.parts).all()
    renamed = relabelled(dataset, tmp_path / "new", group=["never seen"] * len(store.labels))
    assert set(apply_split(renamed, tmp_path / SPLIT_FILE).parts.tolist()) == {TEST}
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(UserError, match="not a split"):
        apply_split(store, tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (SplitSettings(by="genus"), "no such column"),
        (SplitSettings(validation=0.0), "needs a validation split"),
        (SplitSettings(validation=0.5, test=0.5), "leave nothing to train on"),
        (SplitSettings(validation=0.6, test=0.3), "too few for 3 splits"),
        (SplitSettings(shared="keep"), "split.shared=keep"),
    ],
)
def test_splits_that_cannot_be_are_one_line(dataset: Path, settings: SplitSettings, told: str) -> None:
    with pytest.raises(UserError, match=told):
        split_records(LabelledStore(dataset), settings, 0)
