"""Downloading from a RefSeq release, against a server on this machine that behaves as real ones do, or does not."""

import gzip
import hashlib
import json
import logging
import os
import random
import re
import shutil
import signal
import ssl
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from omegaconf import OmegaConf

import virnucpro_pl
from support import CHECKOUT, Result
from virnucpro_pl.commands.download import download
from virnucpro_pl.errors import DownloadError, UserError
from virnucpro_pl.fetching.polite_http import NotFoundError, Patience, PoliteClient, RemoteFile
from virnucpro_pl.training.refseq import select_volumes

DATE = "Mon, 02 Nov 2026 10:00:00 GMT"
PATIENCE = Patience(retries=3)
VIRAL = ["viral.1.1.genomic.fna.gz", "viral.1.genomic.gbff.gz"]


class Request(NamedTuple):
    """What the server was asked."""

    method: str
    path: str
    headers: dict[str, str]


class Server(ThreadingHTTPServer):
    """Serves ``files`` by path, with what ``faults`` says for the next requests of a path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.faults: dict[str, list[Callable[[Handler, bytes], None]]] = defaultdict(list)
        self.requests: list[Request] = []
        self.honours_range = True
        self.url = f"http://127.0.0.1:{self.server_port}/release/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet where a client has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def got(self, name: str) -> list[Request]:
        """Requests for a file's content."""
        return [request for request in self.requests if request.method == "GET" and request.path.endswith(name)]

    def volume(self, division: str, number: int, seed: int = 0) -> None:
        """Add a GenBank file and its FASTA."""
        generator = random.Random(f"{division}{number}{seed}")
        for name in (f"{division}.{number}.1.genomic.fna.gz", f"{division}.{number}.genomic.gbff.gz"):
            self.files[f"/release/{division}/{name}"] = gzip.compress(generator.randbytes(5000), mtime=0)

    def publish(self, release: int = 230) -> None:
        """Write the listings, the checksums and the number of the release."""
        folders: dict[str, list[str]] = defaultdict(list)
        checksums = []
        for path, content in self.files.items():
            *_, folder, name = path.split("/")
            if name.endswith(".gz"):
                folders[folder].append(name)
                checksums.append(f"{hashlib.md5(content).hexdigest()}\t{name}\n")
        for folder, names in folders.items():
            self.files[f"/release/{folder}/"] = listing(*names, "viral.1.protein.faa.gz")
        self.files["/release/"] = listing(*(f"{folder}/" for folder in folders), "release-catalog/", "complete/")
        self.files[f"/release/release-catalog/release{release}.files.installed"] = "".join(checksums).encode()
        self.files["/release/RELEASE_NUMBER"] = f"{release}\n".encode()


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with ranges, ETag and Last-Modified, as Apache serves files."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or headers and content, written apart, are 40 ms apart

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests.append(Request(self.command, self.path, dict(self.headers)))
        content = self.server.files.get(self.path)
        if content is None:
            self.answer(404, b"<html>Not Found</html>")
        elif self.command == "GET" and self.server.faults[self.path]:
            self.server.faults[self.path].pop(0)(self, content)
        else:
            self.serve(content)

    def serve(self, content: bytes) -> None:
        tag = self.server.tags.get(self.path, f'"{hashlib.sha1(content).hexdigest()}"')
        headers = {"ETag": tag, "Last-Modified": DATE}
        start, _, end = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not start or not self.server.honours_range or self.headers.get("If-Range") not in (tag, DATE):
            self.answer(200, content, headers)
        elif int(start) >= len(content):
            self.answer(416, b"", headers)
        else:
            assert not end
            where = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[int(start) :], {**headers, "Content-Range": where})

    def answer(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:cut])
        if cut is not None:
            self.close_connection = True


def listing(*names: str) -> bytes:
    rows = "".join(f'<a href="{name}">{name}</a>  2026-11-02 10:00  1.2M\n' for name in names)
    return (
        f'<html><body><a href="?C=N;O=D">Name</a> <a href="/refseq/">Up</a>\n<pre>{rows}</pre></body></html>'.encode()
    )


def cut_after(count: int) -> Callable[[Handler, bytes], None]:
    def fault(handler: Handler, content: bytes) -> None:
        tag = f'"{hashlib.sha1(content).hexdigest()}"'
        handler.answer(200, content, {"ETag": tag}, cut=count)

    return fault


def status(code: int, **headers: str) -> Callable[[Handler, bytes], None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _content: handler.answer(code, b"", named)


def page(handler: Handler, _content: bytes) -> None:
    handler.answer(200, b"<html>Down for maintenance</html>", {"Content-Type": "text/html"})


def damaged(handler: Handler, content: bytes) -> None:
    handler.answer(200, content[:-1] + bytes([content[-1] ^ 1]))


def trickle(handler: Handler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.close_connection = True
    for byte in content:
        try:
            handler.wfile.write(bytes([byte]))
        except OSError:
            return
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def _certificates_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test uses them, and reading them for every client takes longer than all else."""
    monkeypatch.setattr(httpx2, "Client", partial(httpx2.Client, verify=_certificates()))


@cache
def _certificates() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        found.volume("viral", 1)
        found.publish()
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


class Waits(list[float]):
    """Stands in for sleep: keeps what was asked for and waits for nothing."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Iterator[Callable[..., Waits]]:
    """Fetch the viral FASTA as the library does; return the waits that were asked for."""
    clients = []

    def run(patience: Patience = PATIENCE, **changes: object) -> Waits:
        waits = Waits()
        name = VIRAL[0]
        content = server.files[f"/release/viral/{name}"]
        checksum = hashlib.md5(content).hexdigest()
        remote = RemoteFile(name, f"{server.url}viral/{name}", checksum, len(content), DATE)._replace(**changes)
        clients.append(PoliteClient(patience, waits))
        clients[-1].fetch(remote, tmp_path)
        assert (tmp_path / name).read_bytes() == content
        assert [path.name for path in tmp_path.iterdir()] == [name], "nothing but the file is left"
        return waits

    yield run
    for client in clients:
        client.__exit__()


@pytest.fixture
def path() -> str:
    return f"/release/viral/{VIRAL[0]}"


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / f"{VIRAL[0]}.part"


@pytest.fixture
def overrides(server: Server, tmp_path: Path) -> list[str]:
    return [f"output={tmp_path / 'genomes'}", f"source={server.url}", "patience.first_wait=0", "patience.retries=2"]


@pytest.fixture
def command(overrides: list[str], caplog: pytest.LogCaptureFixture) -> Callable[..., str]:
    """Run the command without Hydra, whose start takes longer than all else; return what it logged."""
    settings = OmegaConf.load(CHECKOUT / "conf" / "download.yaml")
    caplog.set_level(logging.INFO)

    def run(*more: str) -> str:
        caplog.clear()
        download(OmegaConf.merge(settings, OmegaConf.from_dotlist([*overrides, *more])))
        return caplog.text

    return run


def test_connection_that_is_cut_goes_on_where_it_stopped(
    server: Server, fetch: Callable[..., Waits], path: str
) -> None:
    server.faults[path] = [cut_after(2000)]
    assert fetch() == [1.0]
    first, second = server.got(path)
    assert "Range" not in first.headers
    assert second.headers["Range"] == "bytes=2000-"
    assert second.headers["If-Range"].startswith('"')


def test_later_start_goes_on_where_the_first_stopped(
    server: Server, fetch: Callable[..., Waits], path: str, part: Path
) -> None:
    server.faults[path] = [cut_after(2000)]
    with pytest.raises(DownloadError, match=r"RemoteProtocolError.*1 attempts"):
        fetch(Patience(retries=0))
    assert part.read_bytes() == server.files[path][:2000]
    fetch()
    assert server.got(path)[-1].headers["Range"] == "bytes=2000-"


def test_a_part_that_was_complete_is_not_fetched_again(
    server: Server, fetch: Callable[..., Waits], path: str, part: Path
) -> None:
    part.write_bytes(server.files[path])
    fetch()
    assert not server.got(path)


def test_server_without_ranges_starts_over(server: Server, fetch: Callable[..., Waits], path: str) -> None:
    server.honours_range = False
    server.faults[path] = [cut_after(2000)]
    fetch()
    assert len(server.got(path)) == 2


def test_file_that_changed_between_is_fetched_anew(
    server: Server, fetch: Callable[..., Waits], path: str, part: Path
) -> None:
    server.faults[path] = [cut_after(2000)]
    with pytest.raises(DownloadError):
        fetch(Patience(retries=0))
    server.volume("viral", 1, seed=1)
    fetch()
    assert len(server.got(path)) == 2, "the old part is not what made the sum wrong"


def test_the_rest_of_another_version_is_not_added(server: Server, fetch: Callable[..., Waits], path: str) -> None:
    """As a server does that knows ranges and not If-Range."""

    def other_rest(handler: Handler, content: bytes) -> None:
        where = {"Content-Range": f"bytes 2000-{len(content) - 1}/{len(content)}", "ETag": '"other"'}
        handler.answer(206, bytes(len(content) - 2000), where)

    server.faults[path] = [cut_after(2000), other_rest]
    assert fetch() == [1.0, 2.0], "noticed at once, not by the checksum"
    assert "Range" not in server.got(path)[-1].headers


def test_range_the_server_does_not_have_starts_over(
    server: Server, fetch: Callable[..., Waits], path: str, part: Path
) -> None:
    part.write_bytes(bytes(9999))
    part.with_name(f"{part.name}.version").write_text(DATE)
    fetch(bytes=None)
    assert [request.headers.get("Range") for request in server.got(path)] == ["bytes=9999-", None]


@pytest.mark.parametrize(("size", "version"), [(100, ""), (9999, DATE)])
def test_a_part_that_cannot_be_the_beginning_is_not_added_to(
    server: Server, fetch: Callable[..., Waits], path: str, part: Path, size: int, version: str
) -> None:
    """Of an unknown version, or longer than the file."""
    part.write_bytes(bytes(size))
    part.with_name(f"{part.name}.version").write_text(version)
    fetch()
    assert ["Range" in request.headers for request in server.got(path)] == [False]


def test_missing_file_is_not_asked_for_again(server: Server, fetch: Callable[..., Waits]) -> None:
    with pytest.raises(NotFoundError, match="404 Not Found"):
        fetch(url=f"{server.url}viral/nothing")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("faults", "waits"),
    [
        ([status(429, Retry_After="0")], [0.0]),
        ([status(503, Retry_After="17")], [17.0]),
        ([status(503, Retry_After="Fri, 02 Jan 1970 10:00:00 GMT")], [0.0]),
        ([status(503), status(500), status(502)], [1.0, 2.0, 4.0]),
        ([page], [1.0]),
    ],
)
def test_busy_server_is_asked_again_when_it_says(
    server: Server, fetch: Callable[..., Waits], path: str, faults: list, waits: list[float]
) -> None:
    server.faults[path] = faults
    assert fetch() == waits


def test_waits_grow_to_a_limit_and_end(server: Server, fetch: Callable[..., Waits], path: str) -> None:
    server.faults[path] = [status(503)] * 9
    with pytest.raises(DownloadError, match=r"503.*4 attempts"):
        fetch()
    assert len(server.got(path)) == 4


def test_a_wait_that_is_too_long_is_left_to_the_user(server: Server, fetch: Callable[..., Waits], path: str) -> None:
    server.faults[path] = [status(429, Retry_After="86400")]
    with pytest.raises(DownloadError, match=r"429.*asks to wait 86400 s"):
        fetch()


def test_gained_bytes_forgive_failures(
    server: Server, fetch: Callable[..., Waits], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a large file over a bad line would never be complete."""
    monkeypatch.setattr("virnucpro_pl.fetching.polite_http._PROGRESS", 500)

    def cut_again(handler: Handler, content: bytes) -> None:
        start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        where = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        handler.answer(206, content[start:], where, cut=600)

    server.faults[path] = [cut_after(600), *[cut_again] * 6]
    assert fetch(Patience(retries=1)) == [1.0] * 7


def test_wrong_checksum_is_fetched_once_more(
    server: Server, fetch: Callable[..., Waits], path: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults[path] = [damaged]
    fetch()
    assert "fetching it once more" in caplog.text


def test_twice_the_wrong_checksum_is_told(
    server: Server, fetch: Callable[..., Waits], path: str, tmp_path: Path
) -> None:
    server.faults[path] = [damaged, damaged]
    with pytest.raises(DownloadError, match="twice not the"):
        fetch()
    assert not list(tmp_path.iterdir()), "a damaged file gets no name, and nothing is added to it"


def test_page_with_status_200_does_not_replace_what_is_there(
    server: Server, fetch: Callable[..., Waits], path: str, part: Path
) -> None:
    server.faults[path] = [cut_after(2000), page]
    with pytest.raises(DownloadError, match="text/html that is not gzip"):
        fetch(Patience(retries=1))
    assert part.stat().st_size == 2000


@pytest.mark.parametrize("slowest", [10**6, 0])
def test_trickle_and_silence_time_out(
    server: Server, fetch: Callable[..., Waits], path: str, slowest: int, part: Path
) -> None:
    """A byte now and then is no silence, so the speed counts too."""
    silent = threading.Event()
    server.faults[path] = [trickle if slowest else lambda *_: silent.wait(5)]
    with pytest.raises(DownloadError, match="only .* bytes/s" if slowest else "ReadTimeout"):
        fetch(Patience(read_timeout=0.05, slowest=slowest, retries=0))
    silent.set()


def test_server_that_is_not_there_is_told(fetch: Callable[..., Waits]) -> None:
    with pytest.raises(DownloadError, match=r"ConnectError.*3 attempts"):
        fetch(Patience(retries=2), url="http://127.0.0.1:9/x")


def test_program_names_itself(server: Server, fetch: Callable[..., Waits]) -> None:
    fetch()
    assert server.requests[0].headers["User-Agent"] == f"virnucpro-pl/{virnucpro_pl.__version__}"
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_proxy_of_the_environment_is_used(
    server: Server, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://refseq.invalid/release/viral/x"
    server.files[url] = server.files[path]  # a proxy is asked for the whole address
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, server.url)
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with PoliteClient(Patience(retries=0)) as client:
        assert client.size_and_date(url) == (len(server.files[path]), DATE)


def test_same_seed_same_selection() -> None:
    names = [name for n in range(1, 100) for name in (f"plant.{n}.1.genomic.fna.gz", f"plant.{n}.genomic.gbff.gz")]
    shuffled = random.Random(1).sample(names, len(names))
    chosen = select_volumes(names, "plant", 10, 42)
    assert len({volume.number for volume in chosen}) == 10
    assert chosen == select_volumes(shuffled, "plant", 10, 42)
    assert chosen == select_volumes([*names, "fungi.1.1.genomic.fna.gz", "fungi.1.genomic.gbff.gz"], "plant", 10, 42)
    assert chosen != select_volumes(names, "plant", 10, 43)


def test_files_of_a_volume_belong_together() -> None:
    names = ["plant.2.1.genomic.fna.gz", "plant.2.2.genomic.fna.gz", "plant.2.10.genomic.fna.gz"]
    names += ["plant.2.genomic.gbff.gz", "plant.3.genomic.gbff.gz", "plant.4.1.genomic.fna.gz"]
    (drawn,) = select_volumes(names, "plant", 5, 0)
    assert drawn.names == ("plant.2.1.genomic.fna.gz", "plant.2.genomic.gbff.gz")
    (whole,) = select_volumes(names, "plant", None, 0)
    assert whole.names == tuple(names[:4])


def test_download_leaves_files_table_and_record(
    server: Server, cli: Callable[..., Result], overrides: list[str], tmp_path: Path
) -> None:
    for number in range(1, 4):
        server.volume("bacteria", number)
    server.publish()
    result = cli("download", *overrides, "divisions=[viral,bacteria]", "files.bacteria=2")
    assert result.code == 0, result.err
    folder = tmp_path / "genomes"
    header, *rows = [line.split("\t") for line in (folder / "genomes.tsv").read_text().splitlines()]
    assert header == ["file", "class", "group", "annotation", "division"]
    assert rows[0] == [VIRAL[0], "virus", "viral.1", VIRAL[1], "viral"]
    assert [row[1] for row in rows] == ["virus", "others", "others"]
    record = json.loads((folder / "download.json").read_text())
    assert (record["release"], len(record["files"])) == (230, 6)
    for file in record["files"]:
        content = (folder / file["name"]).read_bytes()
        assert content == server.files[file["url"].removeprefix(server.url.removesuffix("/release/"))]
        assert (file["bytes"], file["modified"]) == (len(content), DATE)
        assert file["md5"] == hashlib.md5(content).hexdigest()
        assert file["fetched"]
    named = {row[0] for row in rows} | {row[3] for row in rows} | {"genomes.tsv", "download.json"}
    assert {path.name for path in folder.iterdir()} == named
    assert f"6 files, {sum(file['bytes'] for file in record['files']) / 1000:.1f} kB in all; 0 are there" in result.err
    assert "HTTP Request" not in result.err


def test_second_run_fetches_nothing(server: Server, command: Callable[..., str], tmp_path: Path) -> None:
    command("divisions=[viral]")
    table = tmp_path / "genomes" / "genomes.tsv"
    table.write_text(table.read_text() + "# mine\n")
    asked = len(server.requests)
    command("divisions=[viral]")
    assert len(server.requests) == asked
    assert table.read_text().endswith("# mine\n"), "columns may have been added to it"


def test_files_of_the_user_are_not_replaced(server: Server, command: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "genomes"
    for name in (*VIRAL, f"{VIRAL[0]}.part", "genomes.tsv", "download.json"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("mine\n")
        with pytest.raises(UserError, match=rf"{name} (was not written by `download`|does not have the MD5 of RefSeq)"):
            command("divisions=[viral]")
        assert {path.name: path.read_text() for path in folder.iterdir()} == {name: "mine\n"}
        (folder / name).unlink()
    assert not server.got(".gz")


def test_changed_file_is_fetched_again_once_it_is_moved_away(
    server: Server, command: Callable[..., str], tmp_path: Path
) -> None:
    command("divisions=[viral]")
    file = tmp_path / "genomes" / VIRAL[1]
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    table = tmp_path / "genomes" / "genomes.tsv"
    table.write_text(table.read_text() + "# mine\n")
    with pytest.raises(UserError, match=f"{VIRAL[1]} does not have the MD5 of RefSeq release 230; move it away"):
        command("divisions=[viral]")
    file.rename(tmp_path / "mine.gz")
    command("divisions=[viral]")
    assert file.read_bytes() == server.files[f"/release/viral/{VIRAL[1]}"]
    assert [len(server.got(name)) for name in VIRAL] == [1, 2]
    assert table.read_text().endswith("# mine\n")


def test_another_selection_replaces_its_own_table_only(
    server: Server, command: Callable[..., str], tmp_path: Path
) -> None:
    server.volume("bacteria", 1)
    server.publish()
    both = "divisions=[viral,bacteria]"
    command("divisions=[viral]")
    table, record = (tmp_path / "genomes" / name for name in ("genomes.tsv", "download.json"))
    path = "/release/bacteria/bacteria.1.genomic.gbff.gz"
    server.faults[path] = [status(503)] * 3
    with pytest.raises(DownloadError):
        command(both)
    command(both)
    assert "bacteria.1" in table.read_text()
    table.write_text(table.read_text().replace("others", "virus"))
    before = table.read_text(), record.read_text()
    with pytest.raises(UserError, match=r"genomes\.tsv was not written by `download`, or was changed since"):
        command("divisions=[viral]")
    assert (table.read_text(), record.read_text()) == before


def test_same_command_goes_on_after_a_failure(
    server: Server, cli: Callable[..., Result], overrides: list[str], command: Callable[..., str]
) -> None:
    path = f"/release/viral/{VIRAL[1]}"
    server.faults[path] = [status(503)] * 3
    result = cli("download", *overrides, "divisions=[viral]")
    assert result.code == 1
    assert "503" in result.err.splitlines()[-1]
    assert "start the same command again to continue" in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
    command("divisions=[viral]")
    assert len(server.got(VIRAL[0])) == 1


def test_interrupt_leaves_a_part_to_go_on_from(
    server: Server,
    cli: Callable[..., Result],
    overrides: list[str],
    command: Callable[..., str],
    tmp_path: Path,
    path: str,
) -> None:
    def interrupt(handler: Handler, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        handler.end_headers()
        handler.wfile.write(content[:2000])
        part = tmp_path / "genomes" / f"{VIRAL[0]}.part"
        while not part.exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        handler.close_connection = True

    server.faults[path] = [interrupt]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    try:
        result = cli("download", *overrides, "divisions=[viral]")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.code == 130
    assert result.err.splitlines()[-1].startswith("Interrupted; start the same command again")
    command("divisions=[viral]")
    assert server.got(VIRAL[0])[-1].headers["Range"] == "bytes=2000-"


def test_hostile_names_in_a_listing_are_not_followed(
    server: Server, command: Callable[..., str], tmp_path: Path
) -> None:
    hostile = [
        "../../x.1.1.genomic.fna.gz",
        "/release/viral/viral.7.1.genomic.fna.gz",
        "http://elsewhere.invalid/viral.8.1.genomic.fna.gz",
        "%2e%2e/viral.9.1.genomic.fna.gz",
        "viral.9.1.genomic.fna.gz\n",
        "viral.\x1b.1.genomic.fna.gz",
    ]
    server.files["/release/viral/"] = listing(*hostile, *VIRAL)
    catalog = "/release/release-catalog/release230.files.installed"
    server.files[catalog] += "".join(f"{'0' * 32}\t{name}\n" for name in hostile).encode()
    command("divisions=[viral]")
    assert {path.name for path in tmp_path.rglob("*.gz")} == set(VIRAL)
    assert {request.path for request in server.requests if request.path.endswith(".gz")} == {
        f"/release/viral/{name}" for name in VIRAL
    }


def test_hostile_names_in_a_record_are_not_followed(
    server: Server, command: Callable[..., str], tmp_path: Path
) -> None:
    command("divisions=[viral]")
    record = tmp_path / "genomes" / "download.json"
    record.write_text(record.read_text().replace(f'"{VIRAL[0]}"', '"../escaped.1.1.genomic.fna.gz"'))
    command("divisions=[viral]")
    assert {path.name for path in tmp_path.rglob("*.gz")} == set(VIRAL)


def test_file_without_checksum_is_left_out(server: Server, command: Callable[..., str], tmp_path: Path) -> None:
    server.files["/release/viral/"] = listing(*VIRAL, "viral.2.1.genomic.fna.gz", "viral.2.genomic.gbff.gz")
    told = command("divisions=[viral]")
    assert "viral: 2 files are left out, which have no checksum in release 230" in told


def test_small_disk_is_told_before_anything_is_fetched(
    server: Server, command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5000))
    with pytest.raises(UserError, match=r"10\.0 kB are to be fetched and the disk has 5\.0 kB free"):
        command("divisions=[viral]")
    assert not server.got(".gz")


def test_folder_is_of_one_release(server: Server, command: Callable[..., str]) -> None:
    command("divisions=[viral]")
    server.publish(release=231)
    with pytest.raises(UserError, match="holds files of RefSeq release 230, and the server has release 231"):
        command("divisions=[viral]", "seed=1")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["divisions=[../x]", "files_per_division=1"], "the server has no '../x'; it has viral"),
        (["divisions=[mitochondrion]"], "'mitochondrion' has no default number of files"),
        (["divisions=[complete]"], "viruses and others in the same files"),
        (["divisions=[viral]", "files_per_division=0"], "neither a number above 0 nor all"),
        (["divisions=[]"], "none given"),
        (["connections=4"], "connections=4: a number from 1 to 3"),
        (["source=ftp://host/x"], "source=ftp://host/x: not an address"),
        (["output="], "output=FOLDER"),
        (["output=/dev/null/x"], "output=/dev/null/x: cannot be written: Not a directory"),
        (["patience.read_timeout=0"], "patience.read_timeout=0: a number above 0"),
        (["seed=x"], "seed=x: a whole number"),
    ],
)
def test_mistake_is_one_line(server: Server, command: Callable[..., str], changes: list[str], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)) as error:
        command(*changes)
    assert str(error.value).isprintable()
    assert all(request.path.startswith("/release/") for request in server.requests)


def test_mistake_on_the_command_line(cli: Callable[..., Result], overrides: list[str]) -> None:
    result = cli("download", *overrides, "divisions=[virus]", "files_per_division=1")
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: divisions: the server has no 'virus'; it has viral\n"


def test_address_that_is_no_release_is_told(command: Callable[..., str], server: Server) -> None:
    with pytest.raises(UserError, match="no RefSeq release there"):
        command(f"source={server.url}viral")


def test_several_connections_and_one_writer(server: Server, command: Callable[..., str], tmp_path: Path) -> None:
    """Three files at a time, and another command that is refused meanwhile."""
    from virnucpro_pl.files.folder_lock import FolderLock

    for number in range(2, 6):
        server.volume("viral", number)
    server.publish()
    command("divisions=[viral]", "connections=3")
    assert len(list((tmp_path / "genomes").glob("*.gz"))) == 10
    with FolderLock(tmp_path / "genomes" / ".download.lock") as lock:
        assert lock.take_alone(0)
        with pytest.raises(UserError, match="another run is at work there"):
            command("divisions=[viral]")


def test_progress_is_told(command: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virnucpro_pl.training.release_download._SECONDS_BETWEEN_LINES", 0.0)
    told = command("divisions=[viral]")
    assert "[2/2]" in told
    assert "10.0 kB of 10.0 kB" in told
