"""Download of single weight files, such as heads of the published repository."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virnucpro_pl.errors import DownloadError, escaped
from virnucpro_pl.files.folder_lock import FolderLock
from virnucpro_pl.models.weights.cache import check_home
from virnucpro_pl.models.weights.hub import check_room, gigabytes

if TYPE_CHECKING:
    from virnucpro_pl.fetching.polite_http import PoliteClient

log = logging.getLogger(__name__)

PICKLE_BEGINNINGS = (b"PK\x03\x04", b"\x80\x02")
"""First bytes of ``torch.save`` files: zip archives, and pickles of old versions"""
_RETRIES = 3
_TELL_SECONDS = 30.0
_LOCK_SECONDS = 3600.0


def fetch_file(urls: Sequence[str], folder: Path, begins_with: tuple[bytes, ...]) -> Path:
    """Download a file from the first of several URLs that has it; an interrupted download is resumed.

    One process at a time downloads into a folder; the others wait and find the file.

    Args:
        urls: URLs; the file has the name at the end of the first one.
        folder: folder of the file.
        begins_with: possible first bytes of the file.

    Raises:
        UserError: the disk is full, or the folder cannot be made.
        DownloadError: no URL has the file.
    """
    from virnucpro_pl.fetching.polite_http import Patience, PoliteClient  # slow to import

    name = urls[0].rpartition("/")[2]
    check_home(folder, "VIRNUCPRO_CACHE")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder / ".fetching")
    lock.take_alone(_LOCK_SECONDS)
    try:
        if (folder / name).is_file():
            return folder / name
        reasons = []
        with PoliteClient(Patience(retries=_RETRIES)) as client:
            for url in urls:
                try:
                    _fetch(client, name, url, folder, begins_with)
                    return folder / name
                except DownloadError as error:
                    reasons.append(str(error))
        raise DownloadError(f"{name}: {'; '.join(reasons)}")
    finally:
        lock.release()


def _fetch(client: "PoliteClient", name: str, url: str, folder: Path, begins_with: tuple[bytes, ...]) -> None:
    from virnucpro_pl.fetching.polite_http import RemoteFile

    size, modified = client.size_and_date(url)
    check_room(folder, size or 0, "VIRNUCPRO_CACHE")
    log.info("Fetching %s: %s into %s", escaped(url), "size unknown" if size is None else gigabytes(size), folder)
    last_logged = time.monotonic()

    def log_progress() -> None:
        nonlocal last_logged
        if time.monotonic() - last_logged >= _TELL_SECONDS:
            last_logged = time.monotonic()
            part = folder / f"{name}.part"
            log.info("  %s fetched", gigabytes(part.stat().st_size if part.exists() else 0))

    client.fetch(RemoteFile(name, url, None, size, modified), folder, log_progress, begins_with)
