"""Reads the lines of a streamed HTTP response: a silence is an error, and so is a huge line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from threading import Event, Thread

import httpx

LINE_BYTES = 16_000_000
"""Limit of one line of a streamed response."""


class LineTooLong(Exception):
    """A line has more than `LINE_BYTES`."""


def timely_lines(response: httpx.Response, seconds: float) -> Iterator[bytes]:
    """Yield the lines of a response; after the first one, each has to come within `seconds`.

    The library has one limit for all reads of a request, so a thread ends the connection.

    Raises:
        httpx.ReadTimeout: One did not come in time.
        LineTooLong: One does not end.
    """
    moved, over, late = Event(), Event(), Event()
    connection = response.extensions["network_stream"].get_extra_info("socket")

    def watch() -> None:
        moved.wait()
        while not over.is_set():
            moved.clear()
            if not moved.wait(seconds):
                late.set()
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                return

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        for line in _lines(response):
            moved.set()
            yield line
    except httpx.TransportError as error:
        if late.is_set():
            raise httpx.ReadTimeout(f"no line for {seconds:g} s") from error
        raise
    finally:
        over.set()
        moved.set()
        watcher.join()
    if late.is_set():  # a connection without a declared length ends without an error
        raise httpx.ReadTimeout(f"no line for {seconds:g} s")


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
