"""Checks of run records: types of the keys in use, safe file names, and consistent counts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

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
from virnucpro_pl.runs.record_schema import check_record
from virnucpro_pl.runs.record_types import SCHEMA_VERSION, EmbedRecord, RunRecord, TrainRecord
from virnucpro_pl.runs.run_record import read_run_record

_OTHER_FILES = {DATASET_FILE: "prepare", COMPARISON: "compare", BENCHMARK_TABLE: "benchmark"}
"""File that identifies the output of a command without ``run.json``"""


def finished_run(folder: Path, command: str) -> RunRecord:
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
    return cast("RunRecord", run)


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
        check_record(run, EmbedRecord if command == "embed" else TrainRecord)
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
    check_record(run, RunRecord)
    if (version := run.get("schema_version", SCHEMA_VERSION)) > SCHEMA_VERSION:
        raise UserError(f"{RUN_FILE}: schema_version is {version}, and this program knows {SCHEMA_VERSION}")
    if run["command"][1:2] != ["predict"]:
        raise UserError(f"{RUN_FILE}: command is {escaped(repr(run['command']))[:60]}, not that of a predict")
    listed = [name for names in run["formats"].values() for name in names]
    for listed_name in run["files"]:
        name = listed_name.removeprefix(f"{FIGURES_FOLDER}/")
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise UserError(f"{RUN_FILE}: files: '{escaped(name)}' is not the name of a file in the output folder")
    if missing := [name for name in (*RESULT_FILES, *listed) if name not in run["files"]]:
        raise UserError(f"{RUN_FILE}: files: {escaped(missing[0])} is not listed")


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
