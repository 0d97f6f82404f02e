"""What is under way, shown while it is: loads, prefills, downloads, waiting for a host."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest

from pytest_lmstrix.text import one_line

REDRAW_SECONDS = 0.1
LINE_SECONDS = 30.0
"""Where nothing can be redrawn, such as in the log of a CI machine, a line comes so often."""


class Live:
    """Shows one line of status behind what pytest has written, and takes it away again.

    On a terminal it is redrawn in place; elsewhere long work says from time to time how far it is.
    Workers of pytest-xdist have no terminal, and show nothing.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._silent = hasattr(config, "workerinput") or config.getoption("verbose", 0) < -1
        self._redraws = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._began = self._shown_at = time.monotonic()
        self._drawn = False

    def loading(self, model_id: str, context_length: int) -> LoadProgress:
        self.begin()
        progress = LoadProgress(self, f"{one_line(model_id, 60)} at {context_length:,} tokens")
        progress.show("loading")
        return progress

    def waiting(self, host: str, holder: str) -> None:
        self.begin()
        self.show(f"waiting for {host}: {one_line(holder)}", always=True)

    @contextmanager
    def downloading(self, model_id: str) -> Iterator[Callable[[int, int | None], None]]:
        """Gives what is to be called with the bytes that are there, and all bytes if known."""
        self.begin()
        name = one_line(model_id, 60)

        def progress(done: int, total: int | None) -> None:
            of_total = f" of {total / 1e6:,.0f}" if total else ""
            self.show(f"downloading {name}: {done / 1e6:,.0f}{of_total} MB")

        try:
            yield progress
        finally:
            self.idle()

    def idle(self) -> None:
        if self._drawn:
            self._write("\x1b7\x1b[K\x1b8")
            self._drawn = False

    def show(self, text: str, *, always: bool = False) -> None:
        """Show `text` with the seconds since the work began, unless something just was shown."""
        now = time.monotonic()
        pause = REDRAW_SECONDS if self._redraws else LINE_SECONDS
        if self._silent or (now - self._shown_at < pause and not always):
            return
        self._shown_at = now
        text = f"{text} ({now - self._began:.0f} s)"
        if not self._redraws:
            self._write(f"\n{text}\n")
            return
        room = self._room()
        if room >= 20:
            self._write(f"\x1b7 {text[: room - 1]}\x1b[K\x1b8")
            self._drawn = True

    def begin(self) -> None:
        self._began = time.monotonic()
        self._shown_at = self._began - (REDRAW_SECONDS if self._redraws else 0)

    def _room(self) -> int:
        """Columns behind the cursor: a status that wrapped could not be taken away."""
        if not self._config.pluginmanager.has_plugin("terminalreporter"):
            return 80
        writer = self._config.get_terminal_writer()
        return writer.fullwidth - writer.width_of_current_line - 1

    def _write(self, text: str) -> None:
        manager = self._config.pluginmanager.get_plugin("capturemanager")
        uncaptured: AbstractContextManager[None] = (
            manager.global_and_fixture_disabled() if manager is not None else nullcontext()
        )
        with uncaptured:
            sys.stdout.write(text)
            sys.stdout.flush()


class LoadProgress:
    """How far one load is, and the prefills after it."""

    def __init__(self, live: Live, what: str) -> None:
        self._live = live
        self._what = what

    def __call__(self, fraction: float, /) -> None:
        self.show(f"{fraction:.0%}")

    def prefill(self, done: int, total: int) -> None:
        if done == 0:
            self._live.begin()
        self._live.show(f"{self._what}: prefilled {done:,} of {total:,} tokens")

    def show(self, state: str) -> None:
        self._live.show(f"{self._what}: {state}")
