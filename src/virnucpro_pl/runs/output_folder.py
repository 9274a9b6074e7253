"""Policy for output folders, the same in all commands.

A command never replaces or removes files that it reads or that this program did not write. Both are checked before
anything is written.
"""

import glob
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from virnucpro_pl.configuration.hydra_config import value_of
from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.digests import file_facts
from virnucpro_pl.files.file_kinds import check_kinds, unexpected_kind
from virnucpro_pl.files.output_files import (
    COMPARISON,
    EMBEDDINGS_FOLDER,
    FIGURE_FILES,
    FILES,
    FOLDERS,
    FORMAT_FILES,
    LOG_FILE,
    RUN_FILE,
    WORK_FILES,
    WORK_FOLDER,
    WORK_FOLDERS,
    is_own_work_folder,
)
from virnucpro_pl.runs.log_file import is_own_log

_READ_KEYS = (
    *("input", "embeddings", "reference", "candidate", "tokenizer", "split", "model.fallback_head"),
    *(f"model.{part}.weights" for part in ("dna_encoder", "protein_encoder", "head")),
)
"""Settings that name the inputs of a command"""
_CACHE = "data.embedding_cache"
"""Setting of a folder that stays after the run"""
CLAIMED_FILES = "files"
"""Key in ``identity.json`` of the size and digest of each file that an unfinished run has written"""
_EXTRA_FILES = (*(name for files in FORMAT_FILES.values() for name in files), *FIGURE_FILES)
_EMBEDDING_COMMANDS = {"train", "test"}
"""Commands that write embeddings into a folder of their output folder"""


def check_output(cfg: DictConfig, command: str) -> None:
    """Refuse an output folder in which a command would destroy its inputs or files of others.

    Args:
        cfg: configuration of the command.
        command: name of the command.

    Raises:
        UserError: the folder cannot be written, or a file to be replaced is an input or was not written by this
            program.
    """
    folder, names = Path(cfg.paths.output_dir), [*FILES[command], *_formats(cfg)]
    _check_place(folder)
    cleared = [*FILES[command], *_EXTRA_FILES, RUN_FILE, LOG_FILE, WORK_FOLDER]
    check_reads(
        cfg, [folder / name for name in cleared if os.path.lexists(folder / name)], f"output={escaped(str(folder))}"
    )
    there = [folder / name for name in (*names, RUN_FILE, LOG_FILE, WORK_FOLDER) if os.path.lexists(folder / name)]
    cache = value_of(cfg, _CACHE)
    if cache and Path(cache).resolve().is_relative_to((folder / WORK_FOLDER).resolve()):
        raise UserError(f"{_CACHE}={escaped(cache)}: lies in the work folder, which is removed; give another folder")
    work_names = [f"{WORK_FOLDER}/{name}" for name in (*WORK_FILES, *WORK_FOLDERS)]
    check_kinds(folder, [*names, RUN_FILE, WORK_FOLDER, *work_names])
    check_kinds(folder / EMBEDDINGS_FOLDER, [RUN_FILE, WORK_FOLDER, *work_names])
    claimed = _claimed(folder, command)
    logs = {LOG_FILE} if is_own_log(folder / LOG_FILE) else set()
    strange = [target.name for target in there if target.name not in claimed | logs]
    if strange:
        raise UserError(
            f"output={escaped(str(folder))}: holds {', '.join(strange)}, which `{command}` would replace and has not"
            " written; move it away, or give another folder"
        )


def make_output_folder(folder: Path) -> None:
    """Make an output folder if it is missing.

    Raises:
        UserError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={escaped(str(folder))}: {error.strerror}; give another folder") from error


def check_added(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError if one of the names is in the folder of a finished run, but not in its record."""
    names = list(names)
    check_kinds(folder, (*(str(Path(name).parent) for name in names if "/" in name), *names))
    record = _record(folder / RUN_FILE)
    strange = [name for name in names if record and name not in record["files"] and os.path.lexists(folder / name)]
    if strange:
        raise UserError(f"output={escaped(str(folder))}: {strange[0]} was not written by this program; move it away")


def refuse_within(folder: Path, files: Iterable[Path]) -> None:
    """Raise UserError if an input lies in a folder that will be emptied."""
    for file in files:
        if file.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"output={escaped(str(folder))}: {escaped(str(file))} lies in it and is an input; give another folder"
            )


def check_reads(cfg: DictConfig, targets: Iterable[Path], place: str) -> None:
    """Refuse to replace or remove inputs.

    Args:
        cfg: configuration that names the inputs.
        targets: files and folders that will be replaced or removed.
        place: the folder of the targets, as the user named it.

    Raises:
        UserError: a target is an input, by this or another name, or holds one.
    """
    targets = list(targets)
    for key, name in _reads(cfg):
        for target in targets:
            if _is_within(Path(name), target) or _is_file_of(target, Path(name)):
                raise UserError(
                    f"{place}: {target.name} there would be replaced, and {key}={escaped(name)} reads it; give another"
                    " output"
                )


def _reads(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    for key in _READ_KEYS:
        value = value_of(cfg, key)
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str):  # in train, split is a group of settings
                continue
            if name == "-" and key == "input":  # standard input may be a file
                name = "/dev/stdin"
            for found in [name] if os.path.exists(name) else glob.glob(name):
                yield key, found


def _is_within(path: Path, target: Path) -> bool:
    """Return whether a path is the target, by any name, or lies in it."""
    try:
        if path.samefile(target):
            return True
    except OSError:
        pass
    return target.is_dir() and path.resolve().is_relative_to(target.resolve())


def _is_file_of(target: Path, folder: Path) -> bool:
    """Return whether the target is a file of an input folder."""
    return folder.is_dir() and target.is_file() and target.resolve().parent == folder.resolve()


def _formats(cfg: DictConfig) -> Iterator[str]:
    """Yield the names of the files of the requested formats."""
    for name, files in FORMAT_FILES.items():
        if value_of(cfg, f"formats.{name}"):
            yield from files


def _check_place(folder: Path) -> None:
    """Refuse a path that is no folder or cannot be written; the folder of a finished run may be read-only."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise UserError(f"output={escaped(str(folder))}: {escaped(str(existing))} is a file; name a folder")
    if not os.access(existing, os.W_OK | os.X_OK) and not (folder / RUN_FILE).is_file():
        raise UserError(
            f"output={escaped(str(folder))}: no permission to write to {escaped(str(existing))}; give another folder"
        )


def _claimed(folder: Path, command: str) -> set[str]:
    """Return the names of the files that earlier starts of the same command have written or were about to write."""
    names: set[str] = set()
    work = folder / WORK_FOLDER
    if is_own_work_folder(work):
        _check_unfinished(folder, command)
        names |= {WORK_FOLDER, *claimed_by_unfinished(folder)}
    for record_file in (RUN_FILE, COMPARISON):
        record = _record(folder / record_file)
        if record is None:
            continue
        written_by = record["command"][1]
        if written_by != command:
            raise UserError(
                f"output={escaped(str(folder))}: holds the results of `{escaped(str(written_by))}`; give another folder"
            )
        names |= {record_file, *record["files"], *record.get("folders", ())}
    makers = _makers(folder / EMBEDDINGS_FOLDER)
    if makers - _EMBEDDING_COMMANDS:
        names.discard(EMBEDDINGS_FOLDER)
    elif makers:
        names.add(EMBEDDINGS_FOLDER)
    return names


def _makers(embeddings: Path) -> set[str]:
    """Return the commands that have written the embeddings in a folder, or in its subfolders, one for each dataset."""
    makers = set()
    for place in [embeddings, *(embeddings.iterdir() if embeddings.is_dir() else ())]:
        if record := _record(place / RUN_FILE):
            makers.add(str(record["command"][1]))
        elif (unfinished := place / WORK_FOLDER / "identity.json").is_file():
            try:
                makers.add(str(json.loads(unfinished.read_text(encoding="utf-8"))["command"]))
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                makers.add("")
    return makers


def _check_unfinished(folder: Path, command: str) -> None:
    """Refuse the work folder of an unfinished run of another command."""
    try:
        record = json.loads((folder / WORK_FOLDER / "identity.json").read_text(encoding="utf-8"))
        maker = str(record["command"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # none, or one that the run itself refuses
    if maker != command:
        raise UserError(
            f"output={escaped(str(folder))}: holds an unfinished run of `{escaped(maker)}`; give another folder, or"
            " finish that run first"
        )


def claimed_by_unfinished(folder: Path) -> set[str]:
    """Return the names of the folders, and of the unchanged files, that the unfinished run of a folder has written."""
    try:
        claimed = json.loads((folder / WORK_FOLDER / "identity.json").read_text(encoding="utf-8"))[CLAIMED_FILES]
        return {name for name, written in claimed.items() if "/" not in name and _is_as_written(folder / name, written)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()


def _is_as_written(path: Path, written: list[Any]) -> bool:
    return file_facts(path) in written if path.is_file() else path.name in FOLDERS


def claimed_names(folder: Path) -> dict[str, list[str] | None] | None:
    """Return the names of the files and folders in the run record of a folder, None without a record of this program.

    The value of a folder is the list of its files, None in records of earlier versions.
    """
    record = _record(folder / RUN_FILE)
    if record is None:
        return None
    folders = record.get("folders", ())
    return dict.fromkeys([*record["files"], *folders]) | (folders if isinstance(folders, dict) else {})


def _record(file: Path) -> dict[str, Any] | None:
    """Return the record of a command, None if there is none or another program has written it."""
    if unexpected_kind(file):
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        is_ours = isinstance(record["files"], dict) and record["command"][0] == "virnucpro-pl" and record["command"][1:]
        folders = record.get("folders", [])
        lists = [folders] if isinstance(folders, list) else [names for names in folders.values() if names is not None]
        is_ours = is_ours and all(isinstance(name, str) for names in lists for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return None
    return record if is_ours else None


def claim_default_folder(folder: str) -> str:
    """Make a new dated folder; add ``_2``, ``_3``, … to its name if it exists.

    Raises:
        UserError: the folder cannot be made.
    """
    number = 1
    while True:
        path = Path(folder if number == 1 else f"{folder}_{number}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; give a folder for the results: output=FOLDER") from error
        else:
            return str(path)
