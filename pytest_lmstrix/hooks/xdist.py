"""Integration of pytest-xdist: one plan for all workers, each model on one worker."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pytest_lmstrix.hooks.collection import ascii_id
from pytest_lmstrix.hooks.scheduler import WholeModels
from pytest_lmstrix.plan.plan import Plan
from pytest_lmstrix.wake import PLAN

if TYPE_CHECKING:
    from xdist.scheduler import Scheduling as Scheduler
    from xdist.workermanage import WorkerController


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

    @pytest.hookimpl(optionalhook=True, wrapper=True)
    def pytest_xdist_make_scheduler(
        self, config: pytest.Config
    ) -> Generator[None, Scheduler, WholeModels]:
        """Keep the scheduler of `--dist`, or of another plugin, for all tests of no model."""
        models = _models_by_parameters(self._plan)
        return WholeModels(config, (yield), cache(partial(model_in, models=models)))

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


def _models_by_parameters(plan: Plan) -> dict[str, str]:
    """Return models by the parameters in node ids: those of its cases, and of `limit`."""
    return {
        ascii_id(f"{planned.model.id}-{size}"): planned.model.id
        for planned in plan.models
        for size in planned.context_lengths
    } | {ascii_id(planned.model.id): planned.model.id for planned in plan.models}


def model_in(node_id: str, models: Mapping[str, str]) -> str | None:
    """Return the model of a node id; `models` maps case ids and model ids to model ids.

    Other parameters may precede and follow it, so the longest id between dashes counts.
    """
    # Folders and ids may contain brackets, and ids colons; `@group` may be at the end.
    parameters = node_id.partition("::")[2].partition("[")[2].rpartition("]")[0]
    if not parameters:
        return None
    if parameters in models:  # the usual case, and much faster than a search
        return models[parameters]
    found = [each for each in models if f"-{each}-" in f"-{parameters}-"]
    return models[max(found, key=len)] if found else None
