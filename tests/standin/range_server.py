"""A web server on loopback that serves files by ranges and counts the bytes that it sends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.standin.file_server import serving

_CHUNK_BYTES = 1 << 16


class RangeServer(ThreadingHTTPServer):
    """Serves each of `paths` at every URL path that ends in its name; its other fields say how."""

    daemon_threads = True

    def __init__(self, paths: tuple[Path, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths = paths
        self.ranges = True
        self.etags = ['"v1"']
        """One an answer; the last of them from then on."""
        self.requests: list[str | None] = []
        """The range of every request."""
        self.authorizations: list[str | None] = []
        self.sent_bytes = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has read enough goes away."""

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # else each answer waits 40 ms for a delayed ACK
    server: RangeServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        server = self.server
        place = self.path.partition("?")[0]
        path = next((each for each in server.paths if place.endswith(f"/{each.name}")), None)
        if path is None:
            self.send_error(404)
            return
        total = path.stat().st_size
        wanted = self.headers.get("Range")
        etag = server.etags[min(len(server.requests), len(server.etags) - 1)]
        if body:
            server.requests.append(wanted)
        server.authorizations.append(self.headers.get("Authorization"))
        start, end = 0, total - 1
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted or "")
        partial = found and total and server.ranges and self.headers.get("If-Range", etag) == etag
        if found and partial:
            start, end = int(found[1]), min(int(found[2]), total - 1)
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end}/{total}")
        self.send_header("ETag", etag)
        self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        self.send_header("Content-Length", str(end + 1 - start))
        self.end_headers()
        with path.open("rb") as file:
            file.seek(start)
            left = end + 1 - start if body else 0
            while left:
                chunk = file.read(min(left, _CHUNK_BYTES))
                self.wfile.write(chunk)
                server.sent_bytes += len(chunk)
                left -= len(chunk)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def range_server(*paths: Path) -> Iterator[RangeServer]:
    """A server for the files `paths` that is up inside the block."""
    with RangeServer(paths) as server, serving(server):
        yield server
