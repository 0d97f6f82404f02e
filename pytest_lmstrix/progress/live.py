"""Live status of loads, prefills, downloads and waits for a host."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from rich.console import RenderableType

from pytest_lmstrix.core.formatting import tokens
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.progress.display import Screen
from pytest_lmstrix.progress.status import (
    Activity,
    Estimate,
    Rest,
    Urgent,
    board,
    status_line,
)
from pytest_lmstrix.progress.worker_files import StatusFile, StatusFiles

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

FOLDER = "lmstrix_live"
Hook = Generator[None, object, object]


class Live:
    """The activity of this process; displayed here, or by the controller of pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        worker: Mapping[str, Any] | None = getattr(config, "workerinput", None)
        self._file = None
        self._display = None
        if worker is None:
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


class LiveDisplay:
    """Plugin of the controller, or of the only process, that displays all activities."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.screen = Screen(config, self._board, self._line)
        self._files: StatusFiles | None = None
        self._status: Activity | None = None
        self._estimate = Estimate((), {})
        self._urgent = Urgent()
        self.expected: Callable[[Sequence[str]], Mapping[str, float]] = lambda tests: {}
        """Maps node ids to their seconds in earlier runs, as far as known."""
        config.add_cleanup(self._close)

    def update(self, status: Activity | None) -> None:
        """Set the activity of this process."""
        self._status = status
        if status is not None:
            self.screen.start()

    def _statuses(self) -> list[Activity]:
        statuses = self._files.statuses() if self._files is not None else []
        return statuses + ([self._status] if self._status is not None else [])

    def _rest(self) -> Rest:
        estimate = self._estimate
        return Rest(done=estimate.done, total=estimate.total, seconds=estimate.rest())

    def _board(self, columns: int) -> RenderableType | None:
        statuses = self._statuses()
        return board(statuses, time.time(), self._rest(), columns=columns) if statuses else None

    def _line(self, only_urgent: bool) -> str:
        statuses = self._statuses()
        statuses = self._urgent.select_new(statuses) if only_urgent else statuses
        return status_line(statuses, time.time(), self._rest()) if statuses else ""

    def _close(self) -> None:
        self.screen.stop()
        if self._files is not None:
            self._files.close()

    def _plan(self, tests: Sequence[str], workers: int = 1) -> None:
        if not self._estimate.total:
            self._estimate = Estimate(tests, self.expected(tests), workers)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._plan([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        if self._files is None:
            self._files = StatusFiles()
            self.screen.start()
        node.workerinput[FOLDER] = self._files.folder

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._plan(ids, max(1, len(self._config.option.tx or ())))

    @pytest.hookimpl(optionalhook=True, wrapper=True, tryfirst=True)
    def pytest_testnodedown(self, node: WorkerController) -> Hook:
        if self._files is not None:
            self._files.remove(str(node.gateway.id))
        with self.screen.paused():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logstart(self) -> Hook:
        with self.screen.paused():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Hook:
        self._estimate.add(report.nodeid, report.duration)
        with self.screen.paused():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> Hook:
        self._estimate.finish(nodeid)
        with self.screen.paused():
            return (yield)

    def pytest_enter_pdb(self) -> None:
        self.screen.hold()

    def pytest_leave_pdb(self) -> None:
        self.screen.release()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Hook:
        self.screen.stop()
        return (yield)
