"""Where a board is drawn: below what pytest has written, and taken away before it goes on."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import pytest
from rich.console import Console, RenderableType, detect_legacy_windows

REDRAW_SECONDS = 0.2
LINE_SECONDS = 30.0
"""Where nothing can be redrawn, such as in the log of a CI machine, a line comes so often."""
MOST_LINES = 12
"""Of a board: the terminal is for what pytest says."""
LEAST_COLUMNS = 20
DOWN, UP, SAVE, RESTORE = "\x1bD", "\x1b[A", "\x1b7", "\x1b8"
ERASE_REST, ERASE_LINE, ERASE_BELOW = "\x1b[K", "\x1b[2K", "\x1b[J"
"""Of a VT100, and of every terminal since; rich's own do not keep the cursor's place."""


class Screen:
    """Draws in a thread of its own, since long work is often silent.

    `board` is what to draw on so many columns, and `line` the same for a log, of what is urgent
    only or of all; both return nothing when there is nothing to say.
    """

    def __init__(
        self,
        config: pytest.Config,
        board: Callable[[int], RenderableType | None],
        line: Callable[[bool], str],
    ) -> None:
        self._config = config
        self._board = board
        self._line = line
        self._out = _own_stdout()
        self._silent = config.getoption("verbose", 0) < -1
        self._redraws = (
            sys.stdout.isatty()
            and os.environ.get("TERM") != "dumb"
            # What is written meanwhile would mix with it.
            and config.option.capture in ("fd", "sys")
            and config.getoption("log_cli_level", None) is None
            and not config.getini("log_cli")
            and config.pluginmanager.has_plugin("terminal")
            and not detect_legacy_windows()
        )
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._drawn = 0
        """Lines below the cursor."""
        self._held = False
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
                self._show([])
            yield

    def hold(self) -> None:
        """A debugger has the terminal; what was drawn is below its first lines."""
        with self._lock:
            self._held = True
            if self._drawn:
                self._write(ERASE_BELOW)
                self._drawn = 0

    def release(self) -> None:
        self._held = False

    def _run(self) -> None:
        with suppress(OSError, ValueError):  # the terminal is gone: nobody looks
            while not self._stopped.wait(REDRAW_SECONDS):
                with self._lock:
                    if self._redraws and not self._held:
                        self._draw()
                    elif not self._redraws:
                        self._log()

    def _log(self) -> None:
        self._ticks += 1
        due = self._ticks * REDRAW_SECONDS >= LINE_SECONDS
        if line := self._line(not due):
            self._write(f"\n{line}\n")
        if due:
            self._ticks = 0

    def _draw(self) -> None:
        columns, rows = self._size()
        board = self._board(columns)
        lines: list[str] = []
        if board is not None and columns >= LEAST_COLUMNS:
            console = Console(
                file=self._out, force_terminal=True, legacy_windows=False, width=columns - 1,
                no_color=not self._config.get_terminal_writer().hasmarkup,
            )  # fmt: skip
            with console.capture() as capture:
                console.print(board)
            lines = capture.get().splitlines()[: max(0, min(MOST_LINES, rows - 2))]
        if lines or self._drawn:
            self._show(lines)

    def _show(self, lines: list[str]) -> None:
        """Write `lines` below the cursor over what was drawn there, and come back.

        Room is made first: to where it was saved, a cursor comes back only if nothing scrolls.
        """
        below = [*lines, *[""] * (self._drawn - len(lines))]
        self._drawn = len(lines)
        room = ERASE_REST + DOWN * len(below) + UP * len(below) + SAVE
        self._write(room + "".join(f"\r\n{ERASE_LINE}{line}" for line in below) + RESTORE)

    def _size(self) -> tuple[int, int]:
        """Columns and rows; pytest would ask a standard output that it has turned away itself."""
        size = os.get_terminal_size(self._out.fileno())
        given = os.environ.get("COLUMNS", "")
        wanted = int(given) if given.isdecimal() else 0
        return min(wanted or size.columns, size.columns), size.lines

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
