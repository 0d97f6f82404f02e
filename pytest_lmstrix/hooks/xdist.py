"""Integration of pytest-xdist: one plan for all workers, each model on one worker."""

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
    """Return the plan of the controller, if this process is a worker."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    return msgspec.json.decode(worker[PLAN], type=Plan) if worker is not None else None


def worker_number(config: pytest.Config) -> int:
    """Return the index of this worker; 0 without workers."""
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    return int(str(worker.get("workerid", "gw0")).removeprefix("gw"))


def end_run(session: pytest.Session, reason: str) -> None:
    """Start no more tests."""
    session.shouldfail = reason
    distributed = session.config.pluginmanager.get_plugin("dsession")
    if distributed is not None:  # it ignores `shouldfail`
        distributed.shouldstop = reason


class Scheduling:
    """Plugin of the controller; `sweep` unloads the models that dead workers left loaded."""

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
        report.when = "teardown"  # pytest-html drops rows of other phases

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, error: object | None) -> None:
        self._died = self._died or error is not None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Sweep after all workers have ended; a replacement swept only before its own loads."""
        if self._died:
            self._sweep()


class WholeModels(LoadScheduling):
    """Load scheduling that never splits a model between workers."""

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
    """Return the model of a node id; `models` maps case ids and model ids to model ids.

    Other parameters may precede and follow it, so the longest id between dashes counts.
    """
    # Folders and ids may contain brackets, and ids colons.
    parameters = node_id.partition("::")[2].partition("[")[2].removesuffix("]")
    if parameters in models:  # the usual case, and much faster than a search
        return models[parameters]
    found = [each for each in models if f"-{each}-" in f"-{parameters}-"]
    return models[max(found, key=len)] if found else None
