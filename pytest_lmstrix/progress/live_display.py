"""Displays what all processes of a run do, on the controller or in the only process."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest
from rich.console import RenderableType

from pytest_lmstrix.progress.board import board
from pytest_lmstrix.progress.display import Screen
from pytest_lmstrix.progress.status import Activity, Estimate, Rest, Urgent, status_line
from pytest_lmstrix.progress.worker_files import FOLDER, StatusFiles

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

Hook = Generator[None, object, object]


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
        if not self._config.option.collectonly:
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
