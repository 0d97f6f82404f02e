"""Reads the lines of a streamed HTTP response: a silence is an error, and so is a huge line."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Thread

import httpx

LINE_BYTES = 16_000_000
"""Limit of one line of a streamed response."""


class LineTooLong(Exception):
    """A line has more than `LINE_BYTES`."""


def timely_lines(
    response: httpx.Response,
    first_seconds: float,
    seconds: float,
    is_sign: Callable[[bytes], bool] = bool,
) -> Iterator[bytes]:
    """Yield the lines of a response, of which some are a sign that the model moves.

    The first of these has to come within `first_seconds`, each of the others within `seconds`.
    Lines between them, such as pings that keep a connection open, change nothing. The library has
    one limit for all reads of a request, which any line resets, so a thread ends the connection.

    Raises:
        httpx.ReadTimeout: A sign did not come in time.
        LineTooLong: A line does not end.
    """
    moved, over = Event(), Event()
    exceeded: list[float] = []
    connection = response.extensions["network_stream"].get_extra_info("socket")

    def watch() -> None:
        limit = first_seconds
        while not over.is_set():
            if not moved.wait(limit):
                exceeded.append(limit)
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                return
            moved.clear()
            limit = seconds

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        for line in _lines(response):
            if is_sign(line):
                moved.set()
            yield line
    except httpx.TransportError as error:
        if exceeded:
            raise _silence(*exceeded) from error
        raise
    finally:
        over.set()
        moved.set()
        watcher.join()
    if exceeded:  # a connection without a declared length ends without an error
        raise _silence(*exceeded)


def _silence(seconds: float) -> httpx.ReadTimeout:
    return httpx.ReadTimeout(f"no sign of the model for {seconds:g} s")


def _lines(response: httpx.Response) -> Iterator[bytes]:
    # Not `iter_lines`, which also splits at U+2028 and others, which a model may write.
    rest = bytearray()
    for chunk in response.iter_bytes():
        rest += chunk
        if b"\n" in chunk:
            *lines, rest = rest.split(b"\n")
            yield from (bytes(line) for line in lines if line.strip())
        if len(rest) > LINE_BYTES:
            raise LineTooLong
    if rest.strip():
        yield bytes(rest)
