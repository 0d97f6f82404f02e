"""Integration of pytest-xdist on its controller: one plan for all workers, each model on one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING

import pytest

from pytest_lmstrix.core.formatting import count_of
from pytest_lmstrix.core.types import Host, Model
from pytest_lmstrix.engines.catalog import BUILT_IN, hosts_for
from pytest_lmstrix.hooks.collection import ascii_id
from pytest_lmstrix.hooks.xdist.scheduler import WholeModels
from pytest_lmstrix.hooks.xdist.worker import HOSTS, pack_plan
from pytest_lmstrix.manifest.read import ManifestError, whole_manifest
from pytest_lmstrix.options import read_settings, run_hosts
from pytest_lmstrix.plan.assignment import Job
from pytest_lmstrix.plan.hosts.placement import asked_of
from pytest_lmstrix.plan.plan import Plan
from pytest_lmstrix.wake import PLAN

if TYPE_CHECKING:
    from xdist.scheduler import Scheduling as Scheduler
    from xdist.workermanage import WorkerController


def auto_workers(config: pytest.Config) -> int | None:
    """Return the workers of `-n auto`: one for each host; `None` leaves it to others.

    A mistake in an option or the manifest is reported later.
    """
    with suppress(pytest.UsageError, ManifestError):
        settings = read_settings(config)
        manifest = whole_manifest(settings.models, engine=settings.engine)
        hosts = run_hosts(settings, manifest.hosts)
        return max(1, len(places_of(manifest.models, hosts)))
    return None


def places_of(models: Iterable[Model], hosts: Sequence[Host]) -> list[str]:
    """Return where models can be loaded at the same time: hosts, this machine, other engines.

    A host is there once for each of its slots, after the others have had as many.
    """
    alike = {(model.engine, model.url, model.hosts): model for model in models}
    used = {place for model in alike.values() for place in _places(model, hosts)}
    slots = {host.address: host.slots for host in hosts}
    named = [address for address in slots if address in used]
    places = [*named, *sorted(used - {*named})]
    most = max((slots.get(each, 1) for each in places), default=0)
    return [each for slot in range(most) for each in places if slot < slots.get(each, 1)]


def _places(model: Model, hosts: Sequence[Host]) -> tuple[str, ...]:
    known = {host.address: host for host in hosts}
    own = [known.get(each) or Host(address=each) for each in hosts_for(model, known)]
    # Without a host, built-in engines share the memory of this machine.
    here = "here" if model.engine in BUILT_IN else model.engine
    return tuple(host.address for host in asked_of(model, own)) if own else (here,)


def end_run(session: pytest.Session, reason: str) -> None:
    """Start no more tests."""
    session.shouldfail = reason
    distributed = session.config.pluginmanager.get_plugin("dsession")
    if distributed is not None:  # it ignores `shouldfail`
        distributed.shouldstop = reason


class Scheduling:
    """Plugin of the controller: gives each worker hosts of its own, and models that they have.

    `sweep` unloads the models that dead workers left loaded; `notify` prints a line.
    """

    def __init__(
        self,
        plan: Plan,
        sweep: Callable[[], None],
        notify: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._places = places_of((each.model for each in plan.all_models()), plan.hosts)
        self._sweep = sweep
        self._notify = notify
        self._slots: dict[str, int] = {}
        """Worker -> its number among those that live; a replacement gets that of a dead one."""
        self._workers = 0
        self._died = False
        self._scheduler: WholeModels | None = None

    @cached_property
    def _packed_plan(self) -> bytes:
        return pack_plan(self._plan)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        free = itertools.count()
        slot = next(number for number in free if number not in self._slots.values())
        self._slots[node.gateway.id] = slot
        node.workerinput[PLAN] = self._packed_plan
        addresses = {host.address for host in self._plan.hosts}
        own = dict.fromkeys(self._places_of(slot))  # without repeated slots of a host
        node.workerinput[HOSTS] = [each for each in own if each in addresses]

    @pytest.hookimpl(optionalhook=True, wrapper=True)
    def pytest_xdist_make_scheduler(
        self, config: pytest.Config
    ) -> Generator[None, Scheduler, WholeModels]:
        """Keep the scheduler of `--dist`, or of another plugin, for all tests of no model."""
        models = _models_by_parameters(self._plan)
        idle = self._workers - len(self._places)
        if self._places and idle > 0:
            self._notify(
                f"{count_of(idle, 'worker')} without a host, since a host has one model at a time"
                f"{_in_each_slot(self._plan.hosts)}; -n auto starts one worker a host or slot"
            )
        self._scheduler = WholeModels(
            config,
            (yield),
            cache(partial(model_in, models=models)),
            self._jobs(),
            lambda node: str(self._slots[node.gateway.id]),
        )
        return self._scheduler

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Fail if tests are left: a worker that dies between two of them is no test's failure."""
        outcome = yield
        if self._died and self._scheduler is not None and self._scheduler.has_pending:
            which = ", ".join(self._scheduler.left) or "some tests"
            session.shouldfail = f"not tested, since workers died and were not replaced: {which}"
            raise session.Failed(session.shouldfail)
        return outcome

    def _places_of(self, slot: int) -> list[str]:
        return self._places[slot :: max(1, self._workers)]

    def _jobs(self) -> dict[str, Job]:
        """Return the models to assign: each to the workers with one of its hosts, if any has."""
        slots: dict[str, set[str]] = {}
        for slot in range(self._workers):
            for place in self._places_of(slot):
                slots.setdefault(place, set()).add(str(slot))
        return {
            each.model.id: Job(
                model=each.model.id,
                seconds=each.seconds,
                workers=frozenset[str]().union(
                    *(
                        slots.get(place, ())
                        for place in each.hosts or _places(each.model, self._plan.hosts)
                    )
                ),
            )
            for each in self._plan.all_models()
        }

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: Sequence[object]) -> None:
        self._workers = len(specs)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        report.when = "teardown"  # pytest-html drops rows of other phases

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController, error: object | None) -> None:
        self._slots.pop(node.gateway.id, None)
        self._died = self._died or error is not None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Sweep after all workers have ended; a replacement swept only before its own loads."""
        if self._died:
            self._sweep()


def _in_each_slot(hosts: Iterable[Host]) -> str:
    return " in each of its slots" if any(host.slots > 1 for host in hosts) else ""


def _models_by_parameters(plan: Plan) -> dict[str, str]:
    """Return models by the parameters in node ids: those of its cases, and of `limit`."""
    return {
        ascii_id(f"{planned.model.id}-{size}"): planned.model.id
        for planned in plan.all_models()
        for size in planned.context_lengths
    } | {ascii_id(planned.model.id): planned.model.id for planned in plan.all_models()}


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
