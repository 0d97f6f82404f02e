"""Live status of loads, prefills, downloads and waits for a host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pytest_lmstrix.core.formatting import tokens
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.progress.status import Activity
from pytest_lmstrix.progress.worker_files import FOLDER, StatusFile

if TYPE_CHECKING:
    from pytest_lmstrix.progress.live_display import LiveDisplay


class Live:
    """The activity of this process; displayed here, or by the controller of pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        worker: Mapping[str, Any] | None = getattr(config, "workerinput", None)
        self._file = None
        self._display: LiveDisplay | None = None
        if worker is None:
            from pytest_lmstrix.progress.live_display import LiveDisplay

            self._display = LiveDisplay(config)
            config.pluginmanager.register(self._display, "lmstrix-live")
        elif FOLDER in worker:
            self._file = StatusFile(worker[FOLDER], worker["workerid"])
        self._status: Activity | None = None

    def loading(self, model_id: str, context_length: int) -> LoadProgress:
        what = f"{one_line(model_id, 60)} at {tokens(context_length)} tokens"
        self.begin(what, "loading")
        return LoadProgress(self, what)

    def waiting(self, host: str, holder: str) -> None:
        self.begin(one_line(host, 60), f"waiting for {one_line(holder, 80)}", urgent=True)

    @contextmanager
    def downloading(self, model_id: str) -> Iterator[Callable[[int, int | None], None]]:
        """Display a download; yield a callback for the bytes so far and, if known, in total."""
        self.begin(f"downloading {one_line(model_id, 60)}", "0 MB")

        def progress(done: int, total: int | None) -> None:
            of_total = f" of {total / 1e6:,.0f}" if total else ""
            self.go_on(f"{done / 1e6:,.0f}{of_total} MB", done / total if total else None)

        try:
            yield progress
        finally:
            self.idle()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Clear the display while other code than pytest writes to the terminal."""
        if self._display is None:
            yield
            return
        with self._display.screen.paused():
            yield

    def begin(self, what: str, state: str, *, urgent: bool = False) -> None:
        """Set a new activity."""
        self._set(Activity(what=what, state=state, began=time.time(), urgent=urgent))

    def go_on(self, state: str, fraction: float | None = None) -> None:
        """Update state and progress (0..1) of the current activity."""
        if self._status is not None:
            self._set(replace(self._status, state=state, fraction=fraction, urgent=False))

    def idle(self) -> None:
        """Clear the activity."""
        self._set(None)

    def _set(self, status: Activity | None) -> None:
        self._status = status
        if self._file is not None:
            self._file.write(status)
        if self._display is not None:
            self._display.update(status)


class LoadProgress:
    """Progress of one load and the prefills after it."""

    def __init__(self, live: Live, what: str) -> None:
        self._live = live
        self._what = what
        self._prefilling = False

    def __call__(self, fraction: float, /) -> None:
        if fraction < 1:
            self._live.go_on(f"loading {fraction:.0%}", fraction)
        else:
            self._live.go_on("loaded")

    def prefill(self, done: int, total: int) -> None:
        state = f"prefilled {tokens(done)} of {tokens(total)} tokens"
        if done == 0 or not self._prefilling:
            self._live.begin(self._what, state)
            self._prefilling = True
        self._live.go_on(state, done / total if total else None)
