"""Faults of a stand-in server that speaks HTTP, each for one model and place."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler
from threading import Event, Lock
from typing import Literal

from msgspec import Struct

Place = Literal["load", "predict", "fragment"]
"""A load; a prediction before its first piece; and after it."""
Kind = Literal["error", "crash", "hang", "lost", "garbage", "ends"]


class HttpFault(Struct, frozen=True, kw_only=True):
    """What happens to a request."""

    model: str
    where: Place
    kind: Kind
    """The server's error of any kind, or of a crash; silence; the connection is closed; what is
    no JSON; the end of the answer, as if it were complete."""
    times: int = 1
    skip: int = 0
    """The first requests at this place that it does not happen to."""


class _Left:
    def __init__(self, fault: HttpFault) -> None:
        self.fault, self.skip, self.times = fault, fault.skip, fault.times


class HttpFaults:
    """Faults that are yet to come, of all models of a server."""

    def __init__(self, faults: Iterable[HttpFault] = ()) -> None:
        self._left = [_Left(fault) for fault in faults]
        self._lock = Lock()

    def strike(self, where: Place, model: str) -> Kind | None:
        """Return the kind of the fault that happens now to a request of `model`."""
        with self._lock:
            for each in self._left:
                if (each.fault.where, each.fault.model) != (where, model):
                    continue
                if each.skip:
                    each.skip -= 1
                elif each.times:
                    each.times -= 1
                    return each.fault.kind
        return None

    def left(self) -> list[HttpFault]:
        """Return the faults that have not happened as often as they should."""
        return [each.fault for each in self._left if each.times]


def lose_connection(handler: BaseHTTPRequestHandler) -> None:
    """Close the client's connection in the middle of an answer.

    Raises:
        ConnectionError: Always; it ends the request.
    """
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionError


def hang(handler: BaseHTTPRequestHandler, closing: Event) -> None:
    """Send nothing until the client disconnects or the server closes.

    Raises:
        ConnectionError: Always; it ends the request.
    """
    while not closing.wait(0.01):
        readable = select.select([handler.connection], [], [], 0)[0]
        if readable and not handler.connection.recv(1, socket.MSG_PEEK):
            break
    handler.close_connection = True
    raise ConnectionError
