"""Download of a selection of a RefSeq release into a folder; repeating it resumes."""

import logging
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Lock

from virnucpro_pl.errors import DownloadError, UserError, escaped
from virnucpro_pl.fetching.partial_file import PART, PartialFile, md5_of
from virnucpro_pl.fetching.polite_http import NotFoundError, PoliteClient, RemoteFile
from virnucpro_pl.files.durable import write_text
from virnucpro_pl.training.download_record import (
    TABLE,
    Plan,
    Selection,
    check_table,
    plan_of,
    read_record,
    write_record,
)
from virnucpro_pl.training.refseq import is_division, listed_divisions, listed_files, read_checksums, select_volumes

log = logging.getLogger(__name__)

_LONGEST_LISTING, _LONGEST_LIST = 64 << 20, 512 << 20  # bytes
_SECONDS_BETWEEN_LINES = 20.0


def download(selection: Selection, folder: Path, client: PoliteClient, connections: int = 1) -> Plan:
    """Download the missing files, and write ``genomes.tsv`` and ``download.json``.

    Args:
        selection: files to download.
        folder: output folder, made if it is missing.
        client: HTTP client.
        connections: number of simultaneous downloads.

    Raises:
        UserError: the selection is not available, the disk is too small, or the folder holds another release, or files
            that ``download`` has not written and would replace.
        DownloadError: a download failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = read_record(folder)
    plan = plan_of(record, selection)
    is_new = plan is None
    if is_new:
        check_table(folder, record)
    missing = [] if plan is None else _missing(plan, folder)
    if plan is not None and not missing and record.get("finished") and (folder / TABLE).exists():
        return plan
    if plan is None or missing:
        release = _release_number(client, selection.source)
        if record.get("release", release) != release:
            raise UserError(
                f"output={folder} holds files of RefSeq release {record['release']}, and the server has release"
                f" {release} now; give another folder"
            )
        if plan is None:
            plan = _make_plan(selection, release, client)
            missing = _missing(plan, folder)
    _check_space(plan, missing, folder)
    if is_new:
        (folder / TABLE).unlink(missing_ok=True)
    write_record(folder, selection, plan, finished=False)
    _fetch_all(missing, folder, client, connections)
    if not (folder / TABLE).exists():  # users may add columns to it
        write_text(folder / TABLE, plan.table(selection))
    write_record(folder, selection, plan, finished=True)
    return plan


def _release_number(client: PoliteClient, source: str) -> int:
    try:
        text = client.text(f"{source}RELEASE_NUMBER", 1 << 20).strip()
    except NotFoundError as error:
        raise UserError(f"source={escaped(source)}: no RefSeq release there, for it has no RELEASE_NUMBER") from error
    if not (text.isascii() and text.isdecimal() and len(text) <= 6):
        raise DownloadError(f"{escaped(source)}RELEASE_NUMBER: not a number but {escaped(text[:40])!r}")
    return int(text)


def _make_plan(selection: Selection, release: int, client: PoliteClient) -> Plan:
    """Select files by the listings of their folders and the checksums of the release."""
    source = selection.source
    listings = {division: _listing(client, source, division) for division in selection.counts}
    catalog = f"{source}release-catalog/release{release}.files.installed"
    checksums = read_checksums(client.text(catalog, _LONGEST_LIST))
    files = []
    for division, count in selection.counts.items():
        names = listings[division] & checksums.keys()
        if without := len(listings[division]) - len(names):
            log.warning("%s: %d files are left out, which have no checksum in release %d", division, without, release)
        volumes = select_volumes(names, division, count, selection.seed)
        if not volumes:
            raise UserError(f"divisions: {division} has no genomic files in release {release}; leave it out")
        if count is not None and len(volumes) < count:
            log.info("%s: all of its %d files, fewer than %d", division, len(volumes), count)
        files += [(f"{source}{division}/{name}", name) for volume in volumes for name in volume.names]
    log.info("Asking for the sizes of %d files", len(files))
    return Plan(release, [RemoteFile(name, url, checksums[name], *client.size_and_date(url)) for url, name in files])


def _listing(client: PoliteClient, source: str, division: str) -> set[str]:
    if is_division(division):
        try:
            return listed_files(client.text(f"{source}{division}/", _LONGEST_LISTING))
        except NotFoundError:
            pass
    known = ", ".join(listed_divisions(client.text(source, _LONGEST_LISTING)))
    raise UserError(f"divisions: the server has no {escaped(division)!r}; it has {known or 'none'}")


def _check_space(plan: Plan, missing: list[RemoteFile], folder: Path) -> None:
    """Log the size of the download; raise UserError if it does not fit on the disk."""
    total = sum(file.bytes or 0 for file in plan.files)
    needed = sum(max(0, (file.bytes or 0) - _present(folder / f"{file.name}{PART}")) for file in missing)
    free = shutil.disk_usage(folder).free
    unsaid = sum(file.bytes is None for file in missing)
    log.info(
        "RefSeq release %d: %d files, %s in all; %d are there, %s to fetch%s",
        plan.release,
        len(plan.files),
        _size(total),
        len(plan.files) - len(missing),
        _size(needed),
        f" and {unsaid} files of unknown size" if unsaid else "",
    )
    if needed > free:
        raise UserError(
            f"output={folder}: {_size(needed)} are to be fetched and the disk has {_size(free)} free;"
            " free some, take fewer files, or give a folder on another disk"
        )


class _Progress:
    """Logger of the progress, called by all threads."""

    def __init__(self, files: list[RemoteFile], folder: Path):
        self._folder = folder
        self._names = [file.name for file in files]
        self._total = sum(file.bytes or 0 for file in files)
        self._lock = Lock()
        self._began = self._last = time.monotonic()
        self._finished: set[str] = set()
        self._before = self._fetched()

    def _fetched(self) -> int:
        names = (name if name in self._finished else name + PART for name in self._names)
        return sum(_present(self._folder / name) for name in names)

    def update(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._last < _SECONDS_BETWEEN_LINES:
                return
            self._last = now
            fetched = self._fetched()
            speed = (fetched - self._before) / (now - self._began)
            log.info("  %s of %s, %s/s", _size(fetched), _size(self._total), _size(max(0, round(speed))))

    def finish(self, name: str) -> None:
        with self._lock:
            self._finished.add(name)
            size = _size(_present(self._folder / name))
            log.info("  [%d/%d] %s (%s)", len(self._finished), len(self._names), name, size)


def _fetch_all(files: list[RemoteFile], folder: Path, client: PoliteClient, connections: int) -> None:
    progress = _Progress(files, folder)

    def fetch(file: RemoteFile) -> None:
        client.fetch(file, folder, progress.update)
        progress.finish(file.name)

    threads = ThreadPoolExecutor(connections, thread_name_prefix="download")
    try:
        for done in as_completed([threads.submit(fetch, file) for file in files]):
            done.result()
    except BaseException:
        client.stop()
        raise
    finally:
        # A thread may wait a minute for a timeout; an interrupt must take effect at once.
        threads.shutdown(wait=False, cancel_futures=True)


def _missing(plan: Plan, folder: Path) -> list[RemoteFile]:
    """Return the missing files.

    Raises:
        UserError: a file of this name exists and is not the file of the release.
    """
    missing = []
    for file in plan.files:
        path = folder / file.name
        if not os.path.lexists(path):
            missing.append(file)
        elif not _is_right(path, file):
            raise UserError(
                f"output={escaped(str(folder))}: {file.name} does not have the MD5 of RefSeq release {plan.release};"
                " move it away to fetch that of the release, or give another folder"
            )
        if PartialFile(path).is_foreign():
            raise UserError(
                f"output={escaped(str(folder))}: {file.name}{PART} was not written by `download`; move it away, or give"
                " another folder"
            )
    return missing


def _is_right(path: Path, file: RemoteFile) -> bool:
    if not path.is_file() or (file.bytes is not None and path.stat().st_size != file.bytes):
        return False
    return md5_of(path) == file.md5


def _present(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _size(count: int) -> str:
    """Format a number of bytes.

    >>> _size(12_345_678)
    '12.3 MB'
    """
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count} bytes"
