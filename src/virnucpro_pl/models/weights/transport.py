"""Export and import of weights for machines without a network: a folder of files and their checksums."""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from virnucpro_pl.errors import DamagedWeightsError, UserError, escaped
from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.files.durable import replacing, write_text
from virnucpro_pl.models.weights.cache import cache_folder
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.models.weights.hub import check_room, gigabytes
from virnucpro_pl.models.weights.lock import WeightsLock
from virnucpro_pl.models.weights.sources import DnabertSSource, Esm2Source

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_FORMAT = 1


def export_weights(
    sources: Mapping[str, HeadSource | DnabertSSource | Esm2Source], folder: Path, overwrite: bool = False
) -> int:
    """Copy published weights into a folder, downloading missing ones; return the number of files.

    Args:
        sources: sources of a model, by name; files of the user are not copied.
        folder: folder of the export; intact files in it are kept.
        overwrite: replace an export of other weights.

    Raises:
        UserError: weights are missing, the disk is full, or files in the folder may not be replaced.
        OSError: the folder cannot be written.
    """
    files: dict[str, dict[str, Any]] = {}
    origins: dict[str, Path] = {}
    for name, source in sources.items():
        if source.lock_name is None:
            log.warning("model.%s.weights=%s is your own file: copy it yourself", name, source.weights)
            continue
        repository, _, revision = source.lock_name.partition("@")
        path = source.locate()
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if not file.is_file() or file.name.startswith("."):
                continue
            relative = f"weights/{repository.replace('/', '--')}/{revision}/{file.name}"
            digest = sha256_of(file)[file.name]
            files[relative] = {"sha256": digest, "bytes": file.stat().st_size, "source": source.lock_name}
            origins[relative] = file
    _check_replaced(folder, files, overwrite)
    for relative, file in origins.items():
        _copy(file, folder / relative, files[relative]["sha256"])
    manifest = {"format_version": _FORMAT, "files": files}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    total = sum(file["bytes"] for file in files.values())
    log.info("Exported: %d files, %s, in %s; there: weights import folder=FOLDER", len(files), gigabytes(total), folder)
    return len(files)


def _check_replaced(folder: Path, files: Mapping[str, dict[str, Any]], overwrite: bool) -> None:
    """Refuse to replace an export of other weights, or files that no export has written.

    Args:
        folder: folder of the export.
        files: the new manifest.
        overwrite: replace an export of other weights.

    Raises:
        UserError: a file may not be replaced.
    """
    there = _manifest(folder) if os.path.lexists(folder / MANIFEST) else {}
    if there and there != files and not overwrite:
        raise UserError(f"folder={folder}: holds an export of other weights; give another folder, or overwrite=true")
    for name, file in files.items():
        path = folder / name
        ours = {file["sha256"], there.get(name, file)["sha256"]}
        if os.path.lexists(path) and not (path.is_file() and sha256_of(path)[path.name] in ours):
            raise UserError(f"{path}: not written by `weights export`, or changed since; move it away")


def import_weights(folder: Path) -> int:
    """Import exported weights after checking them; return the number of files.

    Raises:
        UserError: the folder is no export, or the disk is full.
        DamagedWeightsError: files are missing or damaged.
    """
    files = _manifest(folder)
    missing = sum(file["bytes"] for name, file in files.items() if not (cache_folder() / name).is_file())
    check_room(cache_folder(), missing, "VIRNUCPRO_CACHE")
    lock = WeightsLock.here()
    for name, file in files.items():
        given = folder / name
        if not given.is_file() or sha256_of(given)[given.name] != file["sha256"]:
            raise DamagedWeightsError(f"{given}: missing or damaged; copy the folder again")
        lock.check(file["source"], {given.name: file["sha256"]})
        _copy(given, cache_folder() / name, file["sha256"])
    log.info("Imported: %d files, into %s; offline=true disables the network", len(files), cache_folder())
    return len(files)


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = content["files"]
        sound = all(_is_sound(name, file) for name, file in files.items())
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; give a folder that `weights export` has made") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a list of weights; copy the folder again") from error
    if not sound:
        raise UserError(f"{path}: names what is no weight file; copy the folder again")
    return files


def _is_sound(name: str, file: dict[str, Any]) -> bool:
    """Return whether an entry is valid and names a file in the folder."""
    parts = PurePosixPath(name).parts
    is_below = len(parts) == 4 and parts[0] == "weights" and not any(part.startswith(".") for part in parts)
    is_complete = isinstance(file["sha256"], str) and isinstance(file["bytes"], int) and isinstance(file["source"], str)
    return is_below and "\\" not in name and is_complete


def _copy(source: Path, target: Path, digest: str) -> None:
    """Copy a file unless it exists; it appears complete."""
    if target.is_file() and sha256_of(target)[target.name] == digest:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    log.info("%s", escaped(str(target)))
    with replacing(target) as unfinished:
        shutil.copyfile(source, unfinished)
