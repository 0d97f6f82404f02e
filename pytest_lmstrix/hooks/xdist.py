"""Everything that touches pytest-xdist: one plan for all workers, and no model on two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from xdist.scheduler import LoadScheduling

from pytest_lmstrix.hooks.collection import ascii_id
from pytest_lmstrix.plan.plan import Plan

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

PLAN = "lmstrix_plan"


def plan_from_controller(config: pytest.Config) -> Plan | None:
    """The plan that the controller made, if this process is a worker."""
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    return msgspec.json.decode(given[PLAN], type=Plan) if given is not None else None


def worker_number(config: pytest.Config) -> int:
    """0 for the first worker, and where there are none."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    return int(str(given.get("workerid", "gw0")).removeprefix("gw"))


def end_run(session: pytest.Session, reason: str) -> None:
    """Start no more tests."""
    session.shouldfail = reason
    distributed = session.config.pluginmanager.get_plugin("dsession")
    if distributed is not None:  # it runs the tests, and looks at this alone
        distributed.shouldstop = reason


class Scheduling:
    """Registered on the controller; `sweep` unloads what workers that died have left loaded."""

    def __init__(self, plan: Plan, sweep: Callable[[], None]) -> None:
        self._plan = plan
        self._sweep = sweep
        self._died = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput[PLAN] = msgspec.json.encode(self._plan).decode()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> LoadScheduling:
        return WholeModels(config, log, self._plan)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        report.when = "teardown"  # pytest-html drops a row that has no such phase

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, error: object | None) -> None:
        self._died = self._died or error is not None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """When all workers have ended: one that was replaced has swept before its loads only."""
        if self._died:
            self._sweep()


class WholeModels(LoadScheduling):
    """Load scheduling whose chunks end where a model ends."""

    def __init__(self, config: pytest.Config, log: Any, plan: Plan) -> None:
        super().__init__(config, log)
        self.maxschedchunk: int = config.getoption("maxschedchunk") or 1
        self._models = {
            ascii_id(f"{planned.model.id}-{size}"): planned.model.id
            for planned in plan.models
            for size in planned.context_lengths
        } | {ascii_id(planned.model.id): planned.model.id for planned in plan.models}

    def _send_tests(self, node: WorkerController, num: int) -> None:
        def group(place: int) -> str:
            return self._group(self.collection[self.pending[place]])

        while 0 < num < len(self.pending) and group(num) == group(num - 1):
            num += 1
        super()._send_tests(node, num)

    def _group(self, node_id: str) -> str:
        return model_in(node_id, self._models) or node_id


def model_in(node_id: str, models: Mapping[str, str]) -> str | None:
    """The model that a node id is about, by `models`: case id or model id -> model id.

    The longest id that stands between dashes: other parameters may come before it and after it.
    """
    # Folders and ids may have brackets of their own, and ids colons.
    parameters = node_id.partition("::")[2].partition("[")[2].removesuffix("]")
    if parameters in models:  # as nearly always, and much quicker than to look for each
        return models[parameters]
    found = [each for each in models if f"-{each}-" in f"-{parameters}-"]
    return models[max(found, key=len)] if found else None
