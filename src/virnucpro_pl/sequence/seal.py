"""Sealed folders: a manifest with the checksums of all files."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virnucpro_pl.files.digests import sha256_of

MANIFEST = "manifest.json"
_SEAL = "sha256"
_FILES = "files"


class BrokenSealError(ValueError):
    """A file is missing or was changed."""


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with its own SHA-256."""
    path.write_text(json.dumps({**content, _SEAL: _digest_of(content)}, indent=2) + "\n", encoding="utf-8")


def read_sealed(path: Path) -> dict[str, Any]:
    """Read JSON of :func:`write_sealed`.

    Raises:
        BrokenSealError: the file is missing or was changed.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise BrokenSealError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BrokenSealError(f"{path}: damaged (not JSON)") from error
    if isinstance(content, dict) and _SEAL not in content:
        raise BrokenSealError(f"{path}: has no checksum; another version has written it, or it is damaged")
    if not isinstance(content, dict) or content.pop(_SEAL, None) != _digest_of(content):
        raise BrokenSealError(f"{path}: damaged (its SHA-256 differs)")
    return content


def seal(folder: Path, content: Mapping[str, Any], digests: Mapping[str, str] | None = None) -> None:
    """Write the manifest of a folder with the sizes and SHA-256 of its files.

    Args:
        folder: folder that holds files only.
        content: further content of the manifest.
        digests: SHA-256 of files, by name, that need not be read.
    """
    files = {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": (digests or {}).get(path.name) or sha256_of(path)[path.name],
        }
        for path in sorted(folder.iterdir())
    }
    write_sealed(folder / MANIFEST, {_FILES: files, **content})


def check_seal(folder: Path) -> None:
    """Read all files of a sealed folder.

    Raises:
        BrokenSealError: a file is missing or was changed.
    """
    files: dict[str, dict[str, Any]] = read_sealed(folder / MANIFEST)[_FILES]
    for name, file in sorted(files.items(), key=lambda entry: int(entry[1]["bytes"])):
        path = folder / name
        try:
            size = path.stat().st_size
            if size != file["bytes"]:
                raise BrokenSealError(f"{path}: has {size:,} bytes and was written with {file['bytes']:,}")
            if sha256_of(path)[name] != file["sha256"]:
                raise BrokenSealError(f"{path}: damaged (its SHA-256 differs)")
        except OSError as error:
            raise BrokenSealError(f"{path}: {error.strerror}") from error


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
