"""SHA-256 digests of files, and a cache of them."""

import hashlib
import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from virnucpro_pl.files.durable import replacing

log = logging.getLogger(__name__)

_LARGE = 1 << 30
"""Bytes from which hashing takes seconds"""


class FileFacts(TypedDict):
    """Size in bytes and SHA-256 of a file."""

    bytes: int
    sha256: str


def file_state(state: os.stat_result) -> list[int]:
    """Return values that change when a file is written or replaced: size, inode, and mtime and ctime in ns.

    Tools that copy or unpack files restore the mtime; none can restore the ctime.
    """
    return [state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]


def sha256_of(path: Path, digest_cache: Path | None = None) -> dict[str, str]:
    """Return the digest of a file, or of each file of a folder, by name.

    Args:
        path: the file or folder.
        digest_cache: JSON file with the digests of unchanged files, so that weights are not read at every start.
    """
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    cache = _read_cache(digest_cache) if digest_cache else {}
    digests = {}
    for file in files:
        state = file.stat()
        name, entry = str(file.resolve()), file_state(state)
        if cache.get(name, [])[:-1] != entry:
            if state.st_size >= _LARGE and digest_cache:
                log.info("Hashing %s (%.1f GB), once", file, state.st_size / 1e9)
            with file.open("rb") as stream:
                cache[name] = [*entry, hashlib.file_digest(stream, "sha256").hexdigest()]
            if digest_cache:
                _write_cache(digest_cache, cache)
        digests[file.name] = cache[name][-1]
    return digests


def file_facts(path: Path) -> FileFacts:
    """Return size and digest of a file for the run record."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)[path.name]}


def sha256_of_stream(stream: BinaryIO) -> str:
    """Return the digest of the rest of a stream."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _read_cache(digest_cache: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(digest_cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, list) and len(entry) == 5}


def _write_cache(digest_cache: Path, cache: dict[str, list[Any]]) -> None:
    if digest_cache.exists() and not _read_cache(digest_cache):
        return  # a file of another program
    # The folder may be read-only, and the work folder of a finished run is removed.
    with suppress(OSError), replacing(digest_cache) as unfinished:
        unfinished.write_text(json.dumps(cache, indent=2), encoding="utf-8")
