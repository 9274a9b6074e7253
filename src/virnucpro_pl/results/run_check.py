"""Checks of run records: types of the keys in use, safe file names, and consistent counts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from virnucpro_pl.errors import DamagedResultsError, UserError, escaped
from virnucpro_pl.files.output_files import (
    BENCHMARK_TABLE,
    COMPARISON,
    DATASET_FILE,
    FIGURES_FOLDER,
    RESULT_FILES,
    RUN_FILE,
    WORK_FOLDER,
)
from virnucpro_pl.runs.fingerprint import THRESHOLD
from virnucpro_pl.runs.run_record import read_run_record

_EACH = object()
"""Stands for every key of a mapping with arbitrary keys."""
_COUNT_EACH: dict[Any, Any] = {_EACH: int}
_CALLS: dict[Any, Any] = dict.fromkeys(("others", "virus", "ambiguous", "not_called"), int)
_SPEED: dict[Any, Any] = dict.fromkeys(("tokens_per_second", "sequences_per_second", "packing_efficiency"), float)
_SHAPE: dict[Any, Any] = {
    "version": str,
    "command": [str],
    "directory": str,
    "started": str,
    "seconds": float,
    "resumed": int,
    "warnings": [str],
    "config": {"data": {"chunk_length": int | None}},
    "model": {"name": str, "demo": bool, "head": dict | None, "weights": {_EACH: {"sha256": {_EACH: str}}}},
    "engine": {"devices": [str], "precision": str, "torch": str},
    "embedding_cache": str | None,
    "figures": {
        **_SPEED,
        "stages": {_EACH: {"seconds": float, "share": float}},
        "encoders": {_EACH: {**_SPEED, "sequences": int, "cached": int, "tokens": int}},
        **dict.fromkeys(("token_budget", "budget_fill", "batches", "peak_memory_bytes"), float),
        **dict.fromkeys(("wait_mean_ms", "wait_max_ms", "wait_share"), float),
        **dict.fromkeys(("gpu_peak_memory_bytes", "gpu_utilisation_percent"), int | float | None),
    },
    "identity": {
        "data.chunk_length": int,
        "data.chunking": str,
        "results.tie": str,
        "results.min_viral_fraction": float,
        THRESHOLD: float,
    },
    "files": {_EACH: {"bytes": int, "sha256": str}},
    "formats": {_EACH: [str]},
    "counts": {
        "inputs": [
            {
                "path": str,
                "sha256": str,
                "format": str,
                "mates": str | None,
                "records": int,
                "letters": int,
                "calls": _CALLS,
            },
        ],
        "records": int,
        "bases": int,
        "chunks": int,
        "orfs": int,
        "duplicate_suffix": str,
        "saved": {"orfs": int, "proteins": int},
        "record_status": _COUNT_EACH,
        "chunk_status": _COUNT_EACH,
        "calls": {
            "records": _CALLS,
            "chunks": _CALLS,
            "orfs": {"others": int, "virus": int},
            "out_of_domain": int,
        },
    },
}
_METRICS = ("val_loss", "val_average_precision", "val_auroc", "val_accuracy")
_SHAPES: dict[str, dict[Any, Any]] = {
    "embed": {
        "started": str,
        "counts": {"orfs": int},
        "figures": {
            "tokens_per_second": float,
            "encoders": {_EACH: {**_SPEED, "sequences": int, "cached": int}},
        },
    },
    "train": {
        "started": str,
        "warnings": [str],
        "figures": {"epoch": int, "epochs": int, **dict.fromkeys(_METRICS, float)},
    },
}
"""Keys that a later start of these commands reads"""
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    str | None: "text or null",
    int | None: "a whole number or null",
    int | float | None: "a number or null",
    dict | None: "a mapping or null",
    list: "a list",
    dict: "a mapping",
}


_OTHER_FILES = {DATASET_FILE: "prepare", COMPARISON: "compare", BENCHMARK_TABLE: "benchmark"}
"""File that identifies the output of a command without ``run.json``"""


def finished_run(folder: Path, command: str) -> dict[str, Any]:
    """Return the checked run record of a finished ``predict``.

    Args:
        folder: output folder.
        command: command that uses the record.

    Raises:
        UserError: the folder holds no results, those of another command, or a damaged run record.
        DamagedResultsError: the run is not finished.
    """
    run = read_run_record(folder)
    others = [other for file, other in _OTHER_FILES.items() if (folder / file).is_file()]
    if run is not None and isinstance(words := run.get("command"), list):
        others = [word for word in words[1:2] if word != "predict"]
    if others:
        raise UserError(
            f"{folder}: holds the output of `{escaped(str(others[0]))}`; {command} takes the output folder of a"
            " finished predict"
        )
    if run is None:
        if (folder / WORK_FOLDER).is_dir():
            raise DamagedResultsError(f"{folder}: the run is not finished; give its command again to resume it")
        raise UserError(f"{folder}: no results here ({RUN_FILE} is missing); give the output folder of a predict")
    run = {"formats": {}, **run}
    try:
        check_run_record(run)
    except UserError as error:
        raise UserError(
            f"{folder}: {error}; it is damaged or of another version: run predict again, overwrite=true"
        ) from error
    return run


def check_reported(run: Mapping[str, Any], command: str, folder: Path) -> None:
    """Check the types of the keys that ``embed`` or ``train`` reports of a finished run.

    Args:
        run: run record.
        command: ``embed`` or ``train``.
        folder: output folder.

    Raises:
        UserError: a key is missing or has another type.
    """
    try:
        _check(run, _SHAPES[command], "")
    except UserError as error:
        raise UserError(
            f"output={escaped(str(folder))}: {error}; it is damaged or of another version: give overwrite=true to start"
            " over"
        ) from error


def check_run_record(run: Mapping[str, Any]) -> None:
    """Check the types of a run record of ``predict``, and that its files lie in the folder.

    Raises:
        UserError: a key is missing, has another type, or names a file outside of the folder.
    """
    _check(run, _SHAPE, "")
    if run["command"][1:2] != ["predict"]:
        raise UserError(f"{RUN_FILE}: command is {escaped(repr(run['command']))[:60]}, not that of a predict")
    listed = [name for names in run["formats"].values() for name in names]
    for listed_name in run["files"]:
        name = listed_name.removeprefix(f"{FIGURES_FOLDER}/")
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise UserError(f"{RUN_FILE}: files: '{escaped(name)}' is not the name of a file in the output folder")
    if missing := [name for name in (*RESULT_FILES, *listed) if name not in run["files"]]:
        raise UserError(f"{RUN_FILE}: files: {escaped(missing[0])} is not listed")


def _check(value: Any, shape: Any, where: str) -> None:
    kind: Any = shape if isinstance(shape, type | UnionType) else type(shape)
    accepted = int | float if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool) or (kind is int and value < 0):
        raise UserError(f"{RUN_FILE}: {where} is {escaped(repr(value))[:60]}, not {_WORDS[kind]}")
    items: Any = value
    if isinstance(shape, list):
        for number, item in enumerate(items):
            _check(item, shape[0], f"{where}[{number}]")
    if isinstance(shape, dict):
        for key in items if _EACH in shape else shape:
            name = f"{where}.{escaped(str(key))}" if where else str(key)
            if key not in items:
                raise UserError(f"{RUN_FILE}: {name} is missing")
            _check(items[key], shape.get(_EACH) or shape[key], name)


def count_mistakes(counts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the counts of a run record that contradict each other."""
    inputs, calls = counts["inputs"], counts["calls"]
    for total, parts in (("records", "record_status"), ("chunks", "chunk_status")):
        yield from _differ(f"counts.{total}", counts[total], f"counts.{parts}", sum(counts[parts].values()))
        called = counts[parts].get("called", 0) + counts[parts].get("dna_only", 0)
        given = sum(calls[total].values()) - calls[total]["not_called"]
        yield from _differ(f"calls of counts.calls.{total}", given, f"those of counts.{parts}", called)
    for total in ("records", "chunks", "orfs"):
        yield from _differ(f"counts.{total}", counts[total], f"counts.calls.{total}", sum(calls[total].values()))
    yield from _differ("counts.records", counts["records"], "counts.inputs", sum(each["records"] for each in inputs))
    for call in calls["records"]:
        added = sum(each["calls"][call] for each in inputs)
        yield from _differ(f"counts.calls.records.{call}", calls["records"][call], "counts.inputs", added)


def _differ(name: str, number: int, other: str, added: int) -> Iterator[str]:
    if number != added:
        yield f"{name}: {number:,}, but {other}: {added:,} in all"
