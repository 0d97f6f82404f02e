"""A server that sends what real servers were seen to send, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler
from threading import Event

from msgspec import Struct

from tests.standin.http.server import HttpStandIn, StandInHttpServer

Pieces = Iterable[bytes | float]
"""Bytes to send, and seconds to wait before the next ones."""


class Canned(Struct, frozen=True, kw_only=True):
    """The answer to all requests of a path."""

    body: bytes | Callable[[], Pieces] = b""
    status: int = 200
    headers: Mapping[str, str] = {}

    def pieces(self) -> Pieces:
        return (self.body,) if isinstance(self.body, bytes) else self.body()


class CannedServer(HttpStandIn):
    """A server at `url`, whose `answers` are by path; `host` is for `--lmstrix-host`.

    Answers have no declared length: their end is that of the connection, as in HTTP/1.0.
    """

    def __init__(self, answers: Mapping[str, Canned]) -> None:
        self.answers = dict(answers)
        self.missing = Canned(status=404, body=b"Not Found")
        self.paths: list[str] = []
        self.closing = Event()
        self._http = _Http(self)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.host = f"openai+{self.url}"


class _Http(StandInHttpServer):
    def __init__(self, server: CannedServer) -> None:
        self.canned = server
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def _answer(self) -> None:
        canned = self.server.canned
        canned.paths.append(self.path)
        answer = canned.answers.get(self.path, canned.missing)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in answer.pieces():
            if isinstance(piece, bytes):
                self.wfile.write(piece)
                self.wfile.flush()
            elif canned.closing.wait(piece):
                return
