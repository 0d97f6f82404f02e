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
from rich.control import Control
from rich.segment import ControlType

REDRAW_SECONDS = 0.2
LINE_SECONDS = 30.0
"""Where nothing can be redrawn, such as in the log of a CI machine, a line comes so often."""
MOST_LINES = 12
"""Of a board: the terminal is for what pytest says."""


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
            and config.option.capture != "no"  # what tests print would mix with it
            and not detect_legacy_windows()
        )
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._drawn = 0
        """Lines below the cursor."""
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

    def _run(self) -> None:
        with suppress(OSError, ValueError):  # the terminal is gone: nobody looks
            while not self._stopped.wait(REDRAW_SECONDS):
                with self._lock:
                    if self._redraws:
                        self._draw()
                    else:
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
        used = self._columns_used()
        lines: list[str] = []
        # With its line just full, nobody knows in which the cursor is.
        if board is not None and (used == 0 or used % columns > 0):
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
        """Write `lines` below that of the cursor over what was drawn there, and come back.

        All of it is relative, since the terminal may scroll.
        """
        erase = str(Control((ControlType.ERASE_IN_LINE, 2)))
        below = [*lines, *[""] * (self._drawn - len(lines))]
        self._drawn = len(lines)
        with suppress(OSError, ValueError):  # the terminal is gone
            column = self._columns_used() % self._size().columns
            back = str(Control.move_to_column(column, y=-len(below)))
            self._write("".join(f"\r\n{erase}{line}" for line in below) + back)

    def _columns_used(self) -> int:
        """What pytest has written in the line that it is at."""
        if not self._config.pluginmanager.has_plugin("terminalreporter"):
            return 0
        return self._config.get_terminal_writer().width_of_current_line

    def _size(self) -> os.terminal_size:
        """Columns and rows; pytest would ask a standard output that it has turned away itself."""
        size = os.get_terminal_size(self._out.fileno())
        given = os.environ.get("COLUMNS", "")
        return os.terminal_size((int(given) if given.isdecimal() else size.columns, size.lines))

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
