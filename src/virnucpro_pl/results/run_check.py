"""The parts of ``run.json`` that ``verify`` relies on: their types, safe file names, and counts that must agree."""

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.output_files import FIGURES_FOLDER, RESULT_FILES, RUN_FILE
from virnucpro_pl.results.identity import THRESHOLD

_EACH = object()
"""Stands for every key of a mapping whose keys are not known beforehand."""
_COUNT_EACH: dict[Any, Any] = {_EACH: int}
_CALLS: dict[Any, Any] = dict.fromkeys(("others", "virus", "ambiguous", "not_called"), int)
_SHAPE: dict[Any, Any] = {
    "version": str,
    "warnings": [str],
    "model": {"name": str},
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
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    str | None: "text or null",
    list: "a list",
    dict: "a mapping",
}


def check_run_record(run: Mapping[str, Any]) -> None:
    """Check the types of what ``verify`` reads, and that the files lie in the folder.

    Raises:
        UserError: something is missing, has another type, or is no name of a file in the folder.
    """
    _check(run, _SHAPE, "")
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
    if not isinstance(value, accepted) or isinstance(value, bool) or (kind is int and value < 0):
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
    """Yield the counts of ``run.json`` that do not agree with one another."""
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
