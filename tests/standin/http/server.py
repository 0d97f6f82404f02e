"""A threading HTTP server for stand-ins."""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self


class StandInHttpServer(ThreadingHTTPServer):
    """Ends with its process, and is quiet about clients that disconnect."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class HttpStandIn:
    """A stand-in whose HTTP server runs inside `with`."""

    _http: StandInHttpServer
    closing: Event
    """Set at the end, for handlers that wait."""

    def __enter__(self) -> Self:
        Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
