"""Fetching files over HTTP: politely, onwards from where it stopped, and checked before they get their names."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import httpx2

from virnucpro_pl import __version__
from virnucpro_pl.errors import DownloadError, escaped
from virnucpro_pl.fetching.partial_file import PartialFile, md5_of

log = logging.getLogger(__name__)
T = TypeVar("T")

GZIP = b"\x1f\x8b"
_PROGRESS = 1 << 20  # bytes more than ever before, after which failed attempts are forgiven
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}
_SAYS_WHEN = {429, 503}
_NO_HEAD = {405, 501}


class Patience(NamedTuple):
    """What is expected of a server before an attempt counts as failed, and how many may fail."""

    connect_timeout: float = 20.0
    """Seconds for a connection to be made"""
    read_timeout: float = 60.0
    """Seconds without a byte, and the time over which the speed is measured"""
    slowest: float = 1000.0
    """Bytes per second below which a connection is given up"""
    retries: int = 8
    """Attempts after the first; anew after every MiB that was gained"""
    first_wait: float = 1.0
    """Seconds before the second attempt; twice as long before each further one"""
    longest_wait: float = 300.0
    """Most seconds before an attempt"""


class RemoteFile(NamedTuple):
    """A file on a server."""

    name: str
    url: str
    md5: str | None
    """None where nobody publishes one; then only its size tells whether it is whole"""
    bytes: int | None
    """Its size; None if the server does not say"""
    modified: str | None
    """When it was changed, in the server's words"""


class NotFoundError(DownloadError):
    """The server has no such file or folder."""


class _SetbackError(Exception):
    """An attempt that failed and may be made again."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class _StoppedError(Exception):
    """Another thread has ended the download."""


class PoliteClient:
    """Waits as servers ask it to, and longer after every failure; names itself; honours proxies by environment.

    Its methods may be called by several threads.

    Args:
        patience: timeouts and retries.
        sleep: waits for some seconds between attempts; by default until then or until ``stop``.
    """

    def __init__(self, patience: Patience, sleep: Callable[[float], object] | None = None):
        self._patience = patience
        self._stopped = threading.Event()
        self._sleep = self._stopped.wait if sleep is None else sleep
        self._http = httpx2.Client(
            # Of a compressed transfer neither size nor position would be those of the file.
            headers={"User-Agent": f"virnucpro-pl/{__version__}", "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(patience.read_timeout, connect=patience.connect_timeout),
            follow_redirects=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def stop(self) -> None:
        """End what other threads fetch, at their next block."""
        self._stopped.set()

    def text(self, url: str, most_bytes: int) -> str:
        """Return a page or a list.

        Raises:
            NotFoundError: it is not there.
            DownloadError: it cannot be had, or is longer than ``most_bytes``.
        """

        def attempt() -> str:
            content = bytearray()
            with self._http.stream("GET", url) as response:
                _check_status(response)
                for block in self._blocks(response.iter_bytes()):
                    content += block
                    if len(content) > most_bytes:
                        raise DownloadError(f"{escaped(url)}: longer than {most_bytes} bytes, which it cannot be")
            return content.decode("utf-8", "replace")

        return self._persist(url, attempt)

    def size_and_date(self, url: str) -> tuple[int | None, str | None]:
        """Return a file's size in bytes and when it was changed, as far as the server says.

        Raises:
            NotFoundError: it is not there.
            DownloadError: the server does not answer.
        """

        def attempt() -> tuple[int | None, str | None]:
            response = self._http.head(url)
            if response.status_code in _NO_HEAD:
                return None, None
            _check_status(response)
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isdecimal() else None, response.headers.get("Last-Modified")

        return self._persist(url, attempt)

    def fetch(
        self,
        remote: RemoteFile,
        folder: Path,
        tell: Callable[[], None] = lambda: None,
        begins_with: tuple[bytes, ...] = (GZIP,),
    ) -> None:
        """Fetch a file into a folder, onwards from a ``.part`` that is there.

        It gets its name when its MD5 sum is right; if it is wrong, the file is fetched once more.

        Args:
            remote: which file.
            folder: where to.
            tell: called after every block.
            begins_with: how files of its kind begin, to tell them from a page that says sorry.

        Raises:
            NotFoundError: it is not there.
            DownloadError: it cannot be had, or its sum is wrong again; a ``.part`` stays to go on from.
        """
        part = PartialFile(folder / remote.name)
        self._persist(remote.url, lambda: self._complete(remote, part, tell, begins_with), part.size)
        if remote.md5 is not None:
            self._check_sum(remote, part, tell, begins_with)
        part.publish()

    def _check_sum(
        self, remote: RemoteFile, part: PartialFile, tell: Callable[[], None], begins_with: tuple[bytes, ...]
    ) -> None:
        if (first := md5_of(part.path)) != remote.md5:
            log.warning("%s: MD5 is %s instead of %s; fetching it once more", remote.name, first, remote.md5)
            part.discard()
            self._persist(remote.url, lambda: self._complete(remote, part, tell, begins_with), part.size)
            if (again := md5_of(part.path)) != remote.md5:
                part.discard()
                raise DownloadError(
                    f"{remote.name}: its MD5 is {again}, twice not the {remote.md5} of the release's list;"
                    " the server's copy may be damaged, or of another release"
                )

    def _complete(
        self, remote: RemoteFile, part: PartialFile, tell: Callable[[], None], begins_with: tuple[bytes, ...]
    ) -> None:
        """Fetch what is missing of a file, in one request."""
        start, version = part.size(), part.version()
        if start and start == remote.bytes:
            return  # the process ended before it could check the sum
        if not version or (remote.bytes is not None and start > remote.bytes):
            start = 0
        headers = {"Range": f"bytes={start}-", "If-Range": version} if start else {}
        with self._http.stream("GET", remote.url, headers=headers) as response:
            continues = response.status_code == 206
            if response.status_code == 416 or (continues and not _is_the_rest(response, start, version)):
                part.discard()
                raise _SetbackError("the server does not have the rest of the same file")
            _check_status(response)
            blocks = self._blocks(response.iter_raw())
            first = next(blocks, b"")
            if not continues:
                if not any(start.startswith(first[: len(start)]) for start in begins_with):
                    # A page that says sorry may come with status 200.
                    kind = response.headers.get("Content-Type", "something")
                    what = "gzip" if begins_with == (GZIP,) else "such a file"
                    raise _SetbackError(f"the server sent {escaped(kind)} that is not {what}")
                part.begin(_version(response))
            with part.path.open("ab") as stream:
                for block in chain([first], blocks):
                    stream.write(block)
                    tell()
        if remote.md5 is None and remote.bytes is not None and part.size() != remote.bytes:
            raise _SetbackError(f"{part.size():,} of {remote.bytes:,} bytes came")

    def _blocks(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass blocks on while they come fast enough; a trickle would never time out."""
        began, count = time.monotonic(), 0
        for block in blocks:
            self._go_on()
            yield block
            count += len(block)
            seconds = time.monotonic() - began
            if seconds >= self._patience.read_timeout:
                if count < self._patience.slowest * seconds:
                    raise _SetbackError(f"only {count / seconds:.0f} bytes/s")
                began, count = time.monotonic(), 0

    def _persist(self, url: str, attempt: Callable[[], T], position: Callable[[], int] = lambda: 0) -> T:
        """Repeat what fails for a reason that may pass, after longer and longer waits."""
        failures, furthest = 0, position()
        while True:
            self._go_on()
            wait = None
            try:
                return attempt()
            except _SetbackError as error:
                reason, wait = str(error), error.wait
            except httpx2.TransportError as error:
                reason = _reason(error)
            except httpx2.HTTPError as error:
                raise DownloadError(f"{escaped(url)}: {_reason(error)}") from error
            self._go_on()
            if position() >= furthest + _PROGRESS:
                failures, furthest = 0, position()
            failures += 1
            if failures > self._patience.retries:
                raise DownloadError(f"{escaped(url)}: {reason} ({failures} attempts)")
            longest = self._patience.longest_wait
            if wait is None:
                wait = min(self._patience.first_wait * 2 ** (failures - 1), longest)
            elif wait > longest:
                raise DownloadError(f"{escaped(url)}: {reason}, and the server asks to wait {wait:.0f} s")
            log.warning("%s: %s; again in %.0f s", escaped(url), reason, wait)
            self._sleep(wait)

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise _StoppedError


def _check_status(response: httpx2.Response) -> None:
    status = response.status_code
    if response.is_success:
        return
    reason = f"the server answers {status} {escaped(response.reason_phrase)}".rstrip()
    if status in _WORTH_ANOTHER_TRY:
        raise _SetbackError(reason, _retry_after(response) if status in _SAYS_WHEN else None)
    raise (NotFoundError if status in (404, 410) else DownloadError)(f"{escaped(str(response.url))}: {reason}")


def _retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds that a server asks to wait, which it gives as such or as a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _version(response: httpx2.Response) -> str:
    """Return what tells a file from its later versions; a weak ETag does not vouch for every byte."""
    tag: str = response.headers.get("ETag", "")
    modified: str = response.headers.get("Last-Modified", "")
    return tag if tag and not tag.startswith("W/") else modified


def _is_the_rest(response: httpx2.Response, start: int, version: str) -> bool:
    is_from_there = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    return start > 0 and is_from_there and _version(response) in ("", version)


def _reason(error: httpx2.HTTPError) -> str:
    told = escaped(" ".join(str(error).split()))
    name = type(error).__name__
    return f"{name}: {told}" if told else name
