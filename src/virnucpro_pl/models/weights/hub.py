"""Downloads from the Hugging Face hub or the mirror ``HF_ENDPOINT``."""

import hashlib
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from virnucpro_pl.errors import DownloadError, UserError
from virnucpro_pl.models.weights.cache import check_home

log = logging.getLogger(__name__)

_TELL_SECONDS = 30.0
_SLOWEST = 1000.0  # bytes per second, over a minute
_SPEED_SECONDS = 60.0
_SPARE_BYTES = 1 << 28


def snapshot_on_disk(repository: str, revision: str | None, files: Sequence[str]) -> Path | None:
    """Return the folder of a revision in the hub's cache, None if files are missing; the network is not used."""
    from huggingface_hub import constants, snapshot_download  # slow to import

    if Path(constants.HF_HUB_CACHE).parts[0] == "~":  # the client fails without a home folder
        return None
    try:
        patterns = list(files) or None
        found = Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=True))
    except (OSError, ValueError):  # missing, or no name of the hub; the download reports it
        return None
    return found if all((found / name).exists() for name in files) else None


def fetch_snapshot(repository: str, revision: str | None, files: Sequence[str]) -> Path:
    """Download the missing files of a revision into the hub's cache; interrupted downloads are resumed.

    Raises:
        UserError: the disk is full, or the folder cannot be made.
        DownloadError: a file does not match the hub's checksum.
        Exception: errors of the hub's client.
    """
    from huggingface_hub import constants, snapshot_download

    wanted: dict[str, Any] = {"revision": revision, "allow_patterns": list(files) or None}
    planned = snapshot_download(repository, dry_run=True, tqdm_class=_bar(), **wanted)
    size = sum(file.file_size or 0 for file in planned if file.will_download)
    cache = Path(constants.HF_HUB_CACHE)
    check_home(cache, "HF_HOME")
    check_room(cache, size, "HF_HOME")
    log.info(
        "Fetching %s (revision %s) from the hub: %s into %s", repository, revision or "main", gigabytes(size), cache
    )
    folder = Path(snapshot_download(repository, tqdm_class=_bar(), **wanted))
    damaged = [file for file in folder.iterdir() if file.is_file() and not is_whole(file)]
    for file in damaged:
        file.resolve().unlink(missing_ok=True)
        file.unlink(missing_ok=True)
    if damaged:
        names = ", ".join(sorted(file.name for file in damaged))
        raise DownloadError(f"{repository}: {names} came damaged (another checksum than the hub's) and was removed")
    return folder


def check_room(folder: Path, size: int, variable: str) -> None:
    """Raise UserError if so many bytes do not fit, or the folder cannot be made."""
    check_home(folder, variable)
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if size and free < size + _SPARE_BYTES:
        raise UserError(
            f"{gigabytes(size)} are to be fetched into {folder}, where {gigabytes(free)} are free; free some space, or"
            f" set {variable} to a folder on another disk"
        )


def gigabytes(size: int) -> str:
    """Format a size.

    >>> gigabytes(11_400_000_000), gigabytes(468_320_053), gigabytes(812)
    ('11.4 GB', '468 MB', '812 bytes')
    """
    if size >= 10**9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 10**6 else f"{size:,} bytes"


def is_whole(file: Path) -> bool:
    """Return whether a file matches the checksum in its name: SHA-256 of large files, git's SHA-1 of others.

    Files of a cache with copies instead of links have no checksum and count as whole.
    """
    blob = file.resolve()
    name = blob.name
    if blob.parent.name != "blobs" or not set(name) <= set("0123456789abcdef"):
        return True
    with blob.open("rb") as stream:
        if len(name) == 64:
            return hashlib.file_digest(stream, "sha256").hexdigest() == name
        if len(name) == 40:
            digest = hashlib.sha1(f"blob {blob.stat().st_size}\0".encode(), usedforsecurity=False)
            while block := stream.read(1 << 20):
                digest.update(block)
            return digest.hexdigest() == name
    return True


def _bar() -> Any:
    """Return the class of progress bars: the hub's on a terminal, otherwise one that logs lines."""
    from tqdm.auto import tqdm

    class LoggedProgress(tqdm):  # type: ignore[misc]
        """Progress bar that logs without a terminal, and aborts a download that is too slow to ever end."""

        def __init__(self, *arguments: Any, **settings: Any):
            self._counts_bytes = settings.get("unit") == "B"
            self._began = self._told = time.monotonic()
            self._since_began = self._total_bytes = 0
            super().__init__(*arguments, **{**settings, "disable": not sys.stderr.isatty()})

        def update(self, n: float | None = 1) -> Any:
            """Count the bytes."""
            if self._counts_bytes:
                self._count(int(n or 0))
            return super().update(n)

        def _count(self, count: int) -> None:
            now = time.monotonic()
            self._since_began += count
            self._total_bytes += count
            if now - self._began >= _SPEED_SECONDS:
                speed = self._since_began / (now - self._began)
                self._began, self._since_began = now, 0
                if speed < _SLOWEST:
                    raise DownloadError(f"only {speed:.0f} bytes/s arrive")
            if self.disable and now - self._told >= _TELL_SECONDS:
                self._told = now
                total = f" of {gigabytes(int(self.total))}" if self.total else ""
                log.info("  %s%s fetched", gigabytes(self._total_bytes), total)

    return LoggedProgress
