"""Where a status is drawn: behind what pytest has written, and taken away before it goes on."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import pytest
from rich.console import detect_legacy_windows

REDRAW_SECONDS = 0.2
LINE_SECONDS = 30.0
"""Where nothing can be redrawn, such as in the log of a CI machine, a line comes so often."""
SAVE, CLEAR, RESTORE = "\x1b7", "\x1b[K", "\x1b8"


class Screen:
    """Draws what `line` returns, in a thread of its own: long work is often silent.

    `line` is given the room there is, in columns, and whether only what is urgent is wanted.
    """

    def __init__(self, config: pytest.Config, line: Callable[[int, bool], str]) -> None:
        self._config = config
        self._line = line
        self._out = _own_stdout()
        self._silent = config.getoption("verbose", 0) < -1
        self._redraws = (
            sys.stdout.isatty()
            and os.environ.get("TERM") != "dumb"
            and config.option.capture != "no"  # what tests print would mix with it
            and not detect_legacy_windows()
        )
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._drawn = False
        self._ticks = 0

    def start(self) -> None:
        """From now on there may be something to show."""
        if self._thread is None and not self._silent and not self._stopped.is_set():
            self._thread = threading.Thread(target=self._run, name="lmstrix-status", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        with self.paused():
            pass
        if self._thread is not None:
            self._thread.join()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is drawn, and what was is gone."""
        with self._lock:
            if self._drawn:
                self._write(f"{SAVE}{CLEAR}{RESTORE}")
                self._drawn = False
            yield

    def _run(self) -> None:
        with suppress(OSError, ValueError):  # the terminal is gone: nobody looks
            while not self._stopped.wait(REDRAW_SECONDS):
                with self._lock:
                    self._draw()

    def _draw(self) -> None:
        self._ticks += 1
        if self._redraws:
            line = self._line(self._room(), False)
            if line:
                self._write(f"{SAVE} {line}{CLEAR}{RESTORE}")
                self._drawn = True
            elif self._drawn:
                self._write(f"{SAVE}{CLEAR}{RESTORE}")
                self._drawn = False
            return
        due = self._ticks * REDRAW_SECONDS >= LINE_SECONDS
        line = self._line(200, not due)
        if due:
            self._ticks = 0
        if line:
            self._write(f"\n{line}\n")

    def _room(self) -> int:
        """Columns behind the cursor: a status that wrapped could not be taken away."""
        if not self._config.pluginmanager.has_plugin("terminalreporter"):
            return self._columns() - 2
        return self._columns() - self._config.get_terminal_writer().width_of_current_line - 2

    def _columns(self) -> int:
        """pytest would ask a standard output that it has turned away itself."""
        if (given := os.environ.get("COLUMNS", "")).isdecimal():
            return int(given)
        return os.get_terminal_size(self._out.fileno()).columns

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._out.write(text)
            self._out.flush()


def _own_stdout() -> TextIO:
    """Standard output as it is now: pytest turns it away while a test runs."""
    try:
        number = os.dup(sys.stdout.fileno())
    except (OSError, ValueError, io.UnsupportedOperation):
        return sys.stdout
    return os.fdopen(number, "w", encoding=sys.stdout.encoding or "utf-8", errors="replace")
