"""What is under way, shown while it is: loads, prefills, downloads, waiting for a host."""

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
from pytest_lmstrix.progress.worker_files import Relay, Relays

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

FOLDER = "lmstrix_live"
Hook = Generator[None, object, object]


class Live:
    """Knows what this process is doing, and shows it, or has the controller of xdist show it."""

    def __init__(self, config: pytest.Config) -> None:
        given: Mapping[str, Any] | None = getattr(config, "workerinput", None)
        self._relay = None
        self._shown = None
        if given is None:
            self._shown = Shown(config)
            config.pluginmanager.register(self._shown, "lmstrix-live")
        elif FOLDER in given:
            self._relay = Relay(given[FOLDER], given["workerid"])
        self._status: Activity | None = None

    def loading(self, model_id: str, context_length: int) -> LoadProgress:
        what = f"{one_line(model_id, 60)} at {tokens(context_length)} tokens"
        self.begin(what, "loading")
        return LoadProgress(self, what)

    def waiting(self, host: str, holder: str) -> None:
        self.begin(one_line(host, 60), f"waiting for {one_line(holder, 80)}", urgent=True)

    @contextmanager
    def downloading(self, model_id: str) -> Iterator[Callable[[int, int | None], None]]:
        """Gives what is to be called with the bytes that are there, and all bytes if known."""
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
        """For what is written to the terminal by others than pytest."""
        if self._shown is None:
            yield
            return
        with self._shown.screen.paused():
            yield

    def begin(self, what: str, state: str, *, urgent: bool = False) -> None:
        self._tell(Activity(what=what, state=state, began=time.time(), urgent=urgent))

    def go_on(self, state: str, fraction: float | None = None) -> None:
        """The same work has come to `state`, which is `fraction` of it."""
        if self._status is not None:
            self._tell(replace(self._status, state=state, fraction=fraction, urgent=False))

    def idle(self) -> None:
        self._tell(None)

    def _tell(self, status: Activity | None) -> None:
        self._status = status
        if self._relay is not None:
            self._relay.tell(status)
        if self._shown is not None:
            self._shown.tell(status)


class LoadProgress:
    """How far one load is, and the prefills after it."""

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


class Shown:
    """Registered on the controller, or where there are no workers: what everybody is doing."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.screen = Screen(config, self._board, self._line)
        self._relays: Relays | None = None
        self._status: Activity | None = None
        self._estimate = Estimate((), {})
        self._urgent = Urgent()
        self.expected: Callable[[Sequence[str]], Mapping[str, float]] = lambda tests: {}
        """Node ids -> those of which earlier runs tell how many seconds they take."""
        config.add_cleanup(self._close)

    def tell(self, status: Activity | None) -> None:
        self._status = status
        if status is not None:
            self.screen.start()

    def _statuses(self) -> list[Activity]:
        statuses = self._relays.statuses() if self._relays is not None else []
        return statuses + ([self._status] if self._status is not None else [])

    def _rest(self) -> Rest:
        estimate = self._estimate
        return Rest(done=estimate.done, total=estimate.total, seconds=estimate.rest())

    def _board(self, columns: int) -> RenderableType | None:
        statuses = self._statuses()
        return board(statuses, time.time(), self._rest(), columns=columns) if statuses else None

    def _line(self, only_urgent: bool) -> str:
        statuses = self._statuses()
        statuses = self._urgent.unsaid(statuses) if only_urgent else statuses
        return status_line(statuses, time.time(), self._rest()) if statuses else ""

    def _close(self) -> None:
        self.screen.stop()
        if self._relays is not None:
            self._relays.close()

    def _plan(self, tests: Sequence[str], workers: int = 1) -> None:
        if not self._estimate.total:
            self._estimate = Estimate(tests, self.expected(tests), workers)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._plan([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        if self._relays is None:
            self._relays = Relays()
            self.screen.start()
        node.workerinput[FOLDER] = self._relays.folder

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._plan(ids, max(1, len(self._config.option.tx or ())))

    @pytest.hookimpl(optionalhook=True, wrapper=True, tryfirst=True)
    def pytest_testnodedown(self, node: WorkerController) -> Hook:
        if self._relays is not None:
            self._relays.forget(str(node.gateway.id))
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
