"""Splits of a dataset by group, and the check that no sequence is in two splits."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.data.embedding_cache import content_keys
from virnucpro_pl.errors import UserError
from virnucpro_pl.files.durable import write_text
from virnucpro_pl.files.output_files import SPLIT_FILE
from virnucpro_pl.sequence.layout import TableReader
from virnucpro_pl.training.labelled_store import LabelledStore

PARTS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(len(PARTS))
NO_PART = -1
Shared = Literal["refuse", "drop"]
_FORMAT_VERSION = 1
_RANDOM, _COLUMN, _AUTO = "random", "split", "auto"
_PREFERRED = (_COLUMN, "family", "genus", "group", "genome")
_CLASSES = ("others", "virus")
_COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")


class SplitSettings(NamedTuple):
    """Settings of the splits."""

    by: str = _AUTO
    """column of groups that stay together; ``auto``: the first of split, family, genus, group and genome that works;
    ``split``: the splits in that column; ``random``: single fragments, as published, which leaks"""
    validation: float = 0.1
    """share of the groups of each class for early stopping and thresholds"""
    test: float = 0.1
    """share of the groups of each class for the test"""
    shared: Shared = "refuse"
    """treatment of sequences in two splits: ``refuse`` to train, or ``drop`` the copy in the later split"""

    def check(self) -> None:
        """Raise UserError if a setting is out of range."""
        if self.shared not in get_args(Shared):
            raise UserError(f"split.shared={self.shared}: choose one of {', '.join(get_args(Shared))}")
        for name, share in (("validation", self.validation), ("test", self.test)):
            if not 0 <= share < 1:
                raise UserError(f"split.{name}={share}: give a share from 0 to below 1")
        if self.validation == 0:
            raise UserError("split.validation=0: early stopping needs a validation split; 0.1 is usual")
        if self.validation + self.test >= 1:
            raise UserError("split.validation and split.test leave nothing to train on; 0.1 each is usual")


class Split(NamedTuple):
    """Split of each record of a dataset."""

    by: str
    parts: NDArray[np.int8]
    """(R,) index in ``PARTS``, or ``NO_PART``"""
    groups: dict[str, list[str]]
    """names of the groups in each split; empty for single fragments"""
    num_dropped: int = 0
    """records skipped because an earlier split has their sequence"""

    @property
    def leaks(self) -> bool:
        """Return whether fragments of one genome may be in two splits."""
        return self.by == _RANDOM

    def save(self, folder: Path, seed: int) -> None:
        """Write ``split.json``."""
        content = {"format_version": _FORMAT_VERSION, "by": self.by, "seed": seed, "leaking": self.leaks}
        write_text(folder / SPLIT_FILE, json.dumps({**content, "groups": self.groups}, indent=2) + "\n")


def split_records(store: LabelledStore, settings: SplitSettings, seed: int) -> Split:
    """Split the records of a dataset.

    The groups of each class are assigned in an order that depends on their names and the seed only, so that datasets
    of the same genomes with other fragment lengths have the same splits.

    Raises:
        UserError: there are too few groups, or a sequence is in two splits.
    """
    settings.check()
    if settings.by == _RANDOM:
        order = np.random.default_rng(seed).permutation(len(store.labels))
        parts = np.full(len(order), TRAIN, dtype=np.int8)
        num_validation, num_test = (round(share * len(order)) for share in (settings.validation, settings.test))
        parts[order[:num_validation]] = VALIDATION
        parts[order[num_validation : num_validation + num_test]] = TEST
        return _checked(Split(_RANDOM, parts, {}), store, settings)
    by = _chosen_column(store, settings)
    names, numbers = np.unique(store.column(by), return_inverse=True)
    if by == _COLUMN:
        if unknown := sorted(set(names.tolist()) - {*PARTS, ""}):
            raise UserError(f"column split names {unknown[0]!r}; it may hold {', '.join(PARTS)}, or nothing for unused")
        part_of_group = np.array([PARTS.index(name) if name else NO_PART for name in names.tolist()], dtype=np.int8)
        groups = {part: [part] for part in PARTS if part in names}
    else:
        part_of_group = _deal_out(names, numbers, store.labels, settings, seed, by)
        groups = {part: names[part_of_group == number].tolist() for number, part in enumerate(PARTS)}
    return _guarded(_checked(Split(by, part_of_group[numbers], groups), store, settings), store, settings)


def apply_split(store: LabelledStore, path: Path) -> Split:
    """Split a dataset by the groups of ``split.json`` of another one; new groups are test.

    Raises:
        UserError: the file is no split, or names a column that the dataset lacks.
    """
    saved = _read_split(path)
    by, groups = str(saved["by"]), saved["groups"]
    if saved["leaking"]:
        raise UserError(
            f"{path}: it splits single fragments at random, so no other dataset can be split in the same way"
        )
    if by not in store.columns:
        raise UserError(
            f"{store.folder}: has no column {by}, by which {path} splits; it has {', '.join(store.columns)}"
        )
    part_of = {name: number for number, part in enumerate(PARTS) for name in groups.get(part, ())}
    names, numbers = np.unique(store.column(by), return_inverse=True)
    parts = np.array([part_of.get(name, NO_PART if name == "" else TEST) for name in names.tolist()], dtype=np.int8)
    return Split(by, parts[numbers], groups)


def split_again(store: LabelledStore, training: dict[str, Any]) -> Split:
    """Repeat the random split of a training, from the settings in the head file."""
    settings = {name: value for name, value in training["split"].items() if name in SplitSettings._fields}
    return split_records(store, SplitSettings(**settings), int(training["seed"]))


def _read_split(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; train writes it beside the head") from error
    except ValueError as error:
        raise UserError(f"{path}: not a split ({error}); copy it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("groups"), dict) or "by" not in content:
        raise UserError(f"{path}: not a split; give the {SPLIT_FILE} that train writes beside the head")
    return {"leaking": False, **content}


def _chosen_column(store: LabelledStore, settings: SplitSettings) -> str:
    if settings.by != _AUTO:
        if settings.by not in store.columns:
            choices = ", ".join((*store.columns, _RANDOM))
            raise UserError(f"split.by={settings.by}: the dataset has no such column; choose one of {choices}")
        return settings.by
    needed = 2 + (settings.test > 0)
    for name in _PREFERRED:
        if name not in store.columns:
            continue
        values = store.column(name)
        enough = all(len(np.unique(values[store.labels == label])) >= needed for label in (0, 1))
        if name == _COLUMN or (enough and not (values == "").any()):
            return name
    return "genome"


def _deal_out(
    names: NDArray[np.str_],
    numbers: NDArray[np.intp],
    labels: NDArray[np.uint8],
    settings: SplitSettings,
    seed: int,
    by: str,
) -> NDArray[np.int8]:
    """Return the split of each group: the share of the groups of each class, but at least one."""
    parts = np.full(len(names), TRAIN, dtype=np.int8)
    is_taken = np.zeros(len(names), dtype=np.bool_)
    for label, class_name in enumerate(_CLASSES):
        of_class = np.unique(numbers[labels == label])
        of_class = of_class[~is_taken[of_class]]  # a group with both classes is assigned by the first one
        is_taken[of_class] = True
        shares = {VALIDATION: settings.validation, TEST: settings.test}
        wanted = {part: max(1, round(share * len(of_class))) for part, share in shares.items() if share > 0}
        if sum(wanted.values()) >= len(of_class):
            raise UserError(
                f"split.by={by}: class {class_name} has {len(of_class)} group(s), too few for {len(wanted) + 1} splits;"
                " split by a finer column (split.by=genome), add genomes, or give split.test=0"
            )
        order = np.random.default_rng([seed, label]).permutation(len(of_class))
        first = 0
        for part, count in wanted.items():
            parts[of_class[order[first : first + count]]] = part
            first += count
    return parts


def _checked(split: Split, store: LabelledStore, settings: SplitSettings) -> Split:
    """Raise UserError if a split lacks ORFs of a class."""
    has_orfs = np.zeros(len(store.labels), dtype=np.bool_)
    has_orfs[store.orf_records] = True
    for number, part in enumerate(PARTS):
        for label, class_name in enumerate(_CLASSES):
            empty = not (has_orfs & (split.parts == number) & (store.labels == label)).any()
            if empty and (number != TEST or (settings.test > 0 and split.by != _COLUMN)):
                raise UserError(
                    f"split.by={split.by}: the {part} split has no ORF of class {class_name}; give another seed,"
                    " another column, or more genomes"
                )
    return split


def _guarded(split: Split, store: LabelledStore, settings: SplitSettings) -> Split:
    """Find records with a sequence or an ORF that is in an earlier split, too, on either strand."""
    copies, example = _copies(split, store)
    if not copies.any():
        return split
    if settings.shared == "refuse":
        here, there = example
        raise UserError(
            f"split.by={split.by}: {int(copies.sum()):,} fragments have a sequence, or its reverse complement, in two"
            f" splits: {_named(store, here)} ({PARTS[split.parts[here]]}) and {_named(store, there)}"
            f" ({PARTS[split.parts[there]]}); give both the same {split.by} in the table, split by a coarser column, or"
            " leave the copies out with split.shared=drop"
        )
    parts = np.where(copies, NO_PART, split.parts).astype(np.int8)
    return _checked(split._replace(parts=parts, num_dropped=int(copies.sum())), store, settings)


def _named(store: LabelledStore, record: int) -> str:
    return f"{store.record_name(record)} of {store.column('group')[record]}"


def _copies(split: Split, store: LabelledStore) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Return which records repeat a sequence of an earlier split, (R,), and one of them with the repeated record."""
    copies = np.zeros(len(store.labels), dtype=np.bool_)
    example = (-1, -1)
    for sequences, records in (_fragments(store), _orfs(store)):
        keys = np.concatenate([np.empty((0, 2), dtype=np.uint64), *map(_canonical_keys, sequences)])
        part = split.parts[records].astype(np.int64)
        rows = np.flatnonzero(part != NO_PART)
        rows = rows[np.lexsort((part[rows], keys[rows, 1], keys[rows, 0]))]  # of equal keys, the earliest split first
        is_new = np.ones(len(rows), dtype=np.bool_)
        is_new[1:] = (keys[rows[1:]] != keys[rows[:-1]]).any(axis=1)
        first = rows[np.flatnonzero(is_new)[np.cumsum(is_new) - 1]] if len(rows) else rows
        leaking = part[rows] != part[first]
        copies[records[rows[leaking]]] = True
        if leaking.any() and example[0] < 0:
            at = int(np.flatnonzero(leaking)[0])
            example = int(records[rows[at]]), int(records[first[at]])
    return copies, example


def _fragments(store: LabelledStore) -> tuple[Iterator[list[bytes]], NDArray[np.int64]]:
    batches = TableReader(store.folder / "records.arrow", "sequence").batches()
    return (batch.column("sequence").to_pylist() for batch in batches), np.arange(len(store.labels))


def _orfs(store: LabelledStore) -> tuple[Iterator[list[bytes]], NDArray[np.int64]]:
    batches = TableReader(store.folder / "orfs.arrow", "nucleotides").batches()
    return (batch.column("nucleotides").to_pylist() for batch in batches), store.orf_records


def _canonical_keys(sequences: list[bytes]) -> NDArray[np.uint64]:
    """Return digests that are equal for a sequence and its reverse complement, (N, 2)."""
    upper = [sequence.upper() for sequence in sequences]
    return content_keys([min(one, one[::-1].translate(_COMPLEMENT)) for one in upper])
