"""A web server on loopback that serves one file, with scripted faults."""

from __future__ import annotations

import hashlib
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FileServer(ThreadingHTTPServer):
    """Serves `content` at every path that `paths` allows; other fields script its behaviour."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.paths: set[str] | None = None
        self.status = 200
        self.ranges = True
        self.etag: str | None = '"v1"'
        self.cut_after: int | None = None
        """Drop the connection after this many bytes of an answer."""
        self.content_type = "application/octet-stream"
        self.range_start = 0
        """Added to the start of every requested range."""
        self.range_end = 0
        """Added to the end of every requested range."""
        self.range_etag: str | None = None
        """ETag of ranges, where it differs from `etag`."""
        self.declares_length = True
        self.redirect: str | None = None
        self.requests: list[tuple[str, str, str | None]] = []
        """Method, path and Range of every request."""
        self.authorizations: list[str | None] = []
        self.hold: threading.Event | None = None
        """If set, an answer to GET waits for it after the first byte."""
        self.asked = threading.Event()
        """Set by the first GET."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect, as some tests do."""
        if not isinstance(sys.exception(), ConnectionError):
            traceback.print_exc()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # else each answer waits 40 ms for a delayed ACK
    server: FileServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self.server.asked.set()
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        server = self.server
        self.close_connection = True
        wanted = self.headers.get("Range")
        server.requests.append((self.command, self.path, wanted))
        server.authorizations.append(self.headers.get("Authorization"))
        if server.redirect is not None:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            return
        found = server.paths is None or self.path in server.paths
        status = server.status if found else 404
        content = server.content if status == 200 else b""
        start = 0
        same = self.headers.get("If-Range", server.etag) == server.etag
        if status == 200 and wanted and server.ranges and same:
            start = int(wanted.removeprefix("bytes=").rstrip("-")) + server.range_start
            status = 206 if start < len(content) else 416
        self.send_response(status)
        if status == 206:
            end = len(content) - 1 + server.range_end
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
            content = content[start : end + 1]
        etag = server.range_etag if status == 206 and server.range_etag else server.etag
        if etag is not None:
            self.send_header("ETag", etag)
        self.send_header("X-Repo-Commit", COMMIT)
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Type", server.content_type)
        if server.declares_length:
            self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        if body:
            self.wfile.write(content[:1])
            if server.hold is not None:
                server.hold.wait(30)
            self.wfile.write(content[1 : server.cut_after])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    """Serve in a thread inside the block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def file_server(content: bytes) -> Iterator[FileServer]:
    """Run a server for `content` inside the block."""
    with FileServer(content) as server, serving(server):
        yield server


def sha256(content: bytes) -> str:
    """The hash of `content`, as in a manifest."""
    return hashlib.sha256(content).hexdigest()
