"""HTTP client with retries, resumed downloads and checksums."""

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
_PROGRESS = 1 << 20  # bytes of progress after which the count of failures is reset
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}
_SAYS_WHEN = {429, 503}
_NO_HEAD = {405, 501}


class Patience(NamedTuple):
    """Timeouts and retries."""

    connect_timeout: float = 20.0
    """seconds to connect"""
    read_timeout: float = 60.0
    """seconds without data, and the time over which the speed is measured"""
    slowest: float = 1000.0
    """bytes per second below which a connection is closed"""
    retries: int = 8
    """attempts after the first one; counted anew after each MiB of progress"""
    first_wait: float = 1.0
    """seconds before the second attempt; doubled before each further one"""
    longest_wait: float = 300.0
    """longest wait before an attempt in seconds"""


class RemoteFile(NamedTuple):
    """File on a server."""

    name: str
    url: str
    md5: str | None
    """MD5; None if it is not published, so that only the size is checked"""
    bytes: int | None
    """size; None if the server does not state it"""
    modified: str | None
    """time of the last change, as the server states it"""


class NotFoundError(DownloadError):
    """The server has no such file or folder."""


class _SetbackError(Exception):
    """A failed attempt that may be repeated."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class _StoppedError(Exception):
    """Another thread has stopped the download."""


class PoliteClient:
    """Client that waits as servers ask, longer after each failure, and uses the proxies of the environment.

    Its methods may be called by several threads.

    Args:
        patience: timeouts and retries.
        sleep: waits some seconds between attempts; by default interrupted by ``stop``.
    """

    def __init__(self, patience: Patience, sleep: Callable[[float], object] | None = None):
        self._patience = patience
        self._stopped = threading.Event()
        self._sleep = self._stopped.wait if sleep is None else sleep
        self._http = httpx2.Client(
            # Sizes and positions of a compressed transfer would differ from those of the file.
            headers={"User-Agent": f"virnucpro-pl/{__version__}", "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(patience.read_timeout, connect=patience.connect_timeout),
            follow_redirects=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def stop(self) -> None:
        """Stop the downloads of other threads at their next block."""
        self._stopped.set()

    def text(self, url: str, most_bytes: int) -> str:
        """Return the text of a page.

        Raises:
            NotFoundError: the page is missing.
            DownloadError: the download failed, or the page is longer than ``most_bytes``.
        """

        def attempt() -> str:
            content = bytearray()
            with self._http.stream("GET", url) as response:
                _check_status(response)
                for block in self._blocks(response.iter_bytes()):
                    content += block
                    if len(content) > most_bytes:
                        raise DownloadError(f"{escaped(url)}: longer than the limit of {most_bytes} bytes")
            return content.decode("utf-8", "replace")

        return self._persist(url, attempt)

    def size_and_date(self, url: str) -> tuple[int | None, str | None]:
        """Return size in bytes and time of the last change of a file; None if the server does not state them.

        Raises:
            NotFoundError: the file is missing.
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
        on_block: Callable[[], None] = lambda: None,
        begins_with: tuple[bytes, ...] = (GZIP,),
    ) -> None:
        """Download a file into a folder; a ``.part`` file is resumed.

        The file is renamed once its MD5 is right. If it is wrong, the file is downloaded once more.

        Args:
            remote: file on the server.
            folder: folder of the file.
            on_block: called after each block.
            begins_with: possible first bytes of the file, to recognise error pages.

        Raises:
            NotFoundError: the file is missing.
            DownloadError: the download failed, or the MD5 is wrong again; the ``.part`` file stays for a resumption.
        """
        part = PartialFile(folder / remote.name)
        self._persist(remote.url, lambda: self._complete(remote, part, on_block, begins_with), part.size)
        if remote.md5 is not None:
            self._check_sum(remote, part, on_block, begins_with)
        part.publish()

    def _check_sum(
        self, remote: RemoteFile, part: PartialFile, on_block: Callable[[], None], begins_with: tuple[bytes, ...]
    ) -> None:
        if (first := md5_of(part.path)) != remote.md5:
            log.warning("%s: MD5 is %s instead of %s; fetching it once more", remote.name, first, remote.md5)
            part.discard()
            self._persist(remote.url, lambda: self._complete(remote, part, on_block, begins_with), part.size)
            if (again := md5_of(part.path)) != remote.md5:
                part.discard()
                raise DownloadError(
                    f"{remote.name}: its MD5 is {again}, twice not the {remote.md5} of the release's list;"
                    " the server's copy may be damaged, or of another release"
                )

    def _complete(
        self, remote: RemoteFile, part: PartialFile, on_block: Callable[[], None], begins_with: tuple[bytes, ...]
    ) -> None:
        """Download the missing rest of a file in one request."""
        start, version = part.size(), part.version()
        if start and start == remote.bytes:
            return  # the process ended before the check of the MD5
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
                    # An error page may have status 200.
                    kind = response.headers.get("Content-Type", "something")
                    what = "gzip" if begins_with == (GZIP,) else "such a file"
                    raise _SetbackError(f"the server sent {escaped(kind)} that is not {what}")
                part.begin(_version(response))
            with part.path.open("ab") as stream:
                for block in chain([first], blocks):
                    stream.write(block)
                    on_block()
        if remote.md5 is None and remote.bytes is not None and part.size() != remote.bytes:
            raise _SetbackError(f"{part.size():,} of {remote.bytes:,} bytes arrived")

    def _blocks(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield blocks while they arrive fast enough; a slow stream would never time out."""
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
        """Repeat an attempt that fails for a temporary reason, with increasing waits."""
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
    """Return the seconds that a server asks to wait, given as seconds or as a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _version(response: httpx2.Response) -> str:
    """Return the version of a file; a weak ETag does not identify every byte."""
    tag: str = response.headers.get("ETag", "")
    modified: str = response.headers.get("Last-Modified", "")
    return tag if tag and not tag.startswith("W/") else modified


def _is_the_rest(response: httpx2.Response, start: int, version: str) -> bool:
    is_from_there = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    return start > 0 and is_from_there and _version(response) in ("", version)


def _reason(error: httpx2.HTTPError) -> str:
    message = escaped(" ".join(str(error).split()))
    name = type(error).__name__
    return f"{name}: {message}" if message else name
