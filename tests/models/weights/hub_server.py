"""A small server that answers as the hub does."""

import hashlib
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

REFUSED = object()
"""What ``Hub.answers`` returns when it has answered a request itself"""


def git_blob(content: bytes) -> str:
    """What git, and so the hub, calls a file that is not large."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(ThreadingHTTPServer):
    """Answers what ``snapshot_download`` asks as the hub does, and keeps what was asked."""

    daemon_threads = True

    def __init__(self, repositories: dict[str, tuple[str, dict[str, bytes]]]):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories = repositories
        """Revision and files of each"""
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str], object] = lambda method, path: None
        """Called with each request before it is answered"""
        self.spoil: Callable[[bytes], bytes] = lambda content: content
        """What becomes of files on their way"""
        self.answers: Callable[[BaseHTTPRequestHandler, str], object] | None = None
        """Asked for every request; may answer it, and then returns ``REFUSED``"""
        self.page: bytes | None = None
        """Answered to everything, as a proxy's log-in page is"""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> list[str]:
        """Names of the files sent, in order of their names."""
        asked = [path for method, path in self.requests if method == "GET" and "/api/" not in path]
        return sorted(path.rpartition("/")[2] for path in asked)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append((self.command, path))
        self.server.before(self.command, path)
        if self.server.answers and self.server.answers(self, path) is REFUSED:
            return  # it has answered, in its way
        name = path.rpartition("/")[2]
        if self.server.page is not None:
            return self._send(200, self.server.page)
        repository = next((name for name in self.server.repositories if f"/{name}/" in path), None)
        if repository is None:
            return self._send(401, b'{"error": "Invalid username or password."}', {"X-Error-Code": "RepoNotFound"})
        revision, files = self.server.repositories[repository]
        if f"/{revision}" not in path:
            return self._send(404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
        if path == f"/api/models/{repository}/tree/{revision}":
            listing = [
                {"type": "file", "path": name, "size": len(content), "oid": git_blob(content)}
                for name, content in files.items()
            ]
            return self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})
        if path.startswith(f"/{repository}/resolve/") and name in files:
            return self._send_file(files[name], revision)
        return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})

    def _send_file(self, content: bytes, revision: str) -> None:
        """Send a file, or the rest of it; what the hub says of it, and then the bytes that are to come."""
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {"ETag": f'"{git_blob(content)}"', "X-Repo-Commit": revision, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        sent = self.server.spoil(content)[start:] if self.command == "GET" else content[start:]
        self._send(206 if start else 200, sent, headers, length=len(content) - start)

    do_HEAD = do_GET

    def _send(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        length = len(content) if length is None else length
        for header, value in {"Content-Length": str(length), **(headers or {})}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
        self.close_connection |= len(content) != length

    def log_message(self, *_: object) -> None:
        pass
