"""Draws a board below pytest's output, and erases it before pytest continues."""

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

from pytest_lmstrix.system.workflow_commands import guarded

REDRAW_SECONDS = 0.2
LINE_SECONDS = 30.0
"""Interval of plain lines where redrawing is impossible, such as in CI logs."""
MOST_LINES = 12
"""Height limit of a board; the terminal is for pytest's output."""
LEAST_COLUMNS = 20
DOWN, UP, SAVE, RESTORE = "\x1bD", "\x1b[A", "\x1b7", "\x1b8"
ERASE_REST, ERASE_LINE, ERASE_BELOW = "\x1b[K", "\x1b[2K", "\x1b[J"
"""VT100 sequences; rich's own do not restore the cursor position."""


class Screen:
    """Draws in its own thread, since long work may report no progress.

    `board` returns the board for a width in columns, `None` for an empty one. `line` returns a
    line for logs, empty if there is none; its argument restricts it to urgent activities.
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
        self._out = guarded(_own_stdout())
        self._silent = config.getoption("verbose", 0) < -1
        self._redraws = (
            sys.stdout.isatty()
            and os.environ.get("TERM") != "dumb"
            # Uncaptured output would mix with the board.
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
        """Number of lines drawn below the cursor."""
        self._held = False
        self._ticks = 0

    def start(self) -> None:
        """Start drawing. Idempotent."""
        if self._thread is None and not self._silent and not self._stopped.is_set():
            self._thread = threading.Thread(target=self._run, name="lmstrix-status", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Erase the board and stop drawing."""
        self._stopped.set()
        with self.paused():
            pass
        if self._thread is not None:
            self._thread.join()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Erase the board, and draw nothing inside the block."""
        with self._lock:
            if self._drawn:
                self._show([])
            yield

    def hold(self) -> None:
        """Stop drawing until `release`: a debugger uses the terminal."""
        with self._lock:
            self._held = True
            if self._drawn:  # below the first lines of the debugger
                self._write(ERASE_BELOW)
                self._drawn = 0

    def release(self) -> None:
        self._held = False

    def _run(self) -> None:
        with suppress(OSError, ValueError):  # the terminal is closed
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
        """Replace the board below the cursor by `lines`, and restore the cursor.

        Scroll first: a saved cursor position is not adjusted when the terminal scrolls.
        """
        below = [*lines, *[""] * (self._drawn - len(lines))]
        self._drawn = len(lines)
        room = ERASE_REST + DOWN * len(below) + UP * len(below) + SAVE
        self._write(room + "".join(f"\r\n{ERASE_LINE}{line}" for line in below) + RESTORE)

    def _size(self) -> tuple[int, int]:
        """Return columns and rows; pytest would ask the standard output that it captures."""
        size = os.get_terminal_size(self._out.fileno())
        variable = os.environ.get("COLUMNS", "")
        limit = int(variable) if variable.isdecimal() else 0
        return min(limit or size.columns, size.columns), size.lines

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._out.write(text)
            self._out.flush()


def _own_stdout() -> TextIO:
    """Return a duplicate of standard output, which pytest does not capture."""
    try:
        number = os.dup(sys.stdout.fileno())
    except (OSError, ValueError, io.UnsupportedOperation):
        return sys.stdout
    return os.fdopen(number, "w", encoding=sys.stdout.encoding or "utf-8", errors="replace")
