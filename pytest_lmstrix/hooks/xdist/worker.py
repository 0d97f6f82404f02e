"""A worker of pytest-xdist: the plan and the hosts from its controller, pauses between models."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from _pytest._code.code import TerminalRepr
from _pytest.runner import runtestprotocol

from pytest_lmstrix.plan.plan import Plan
from pytest_lmstrix.wake import PLAN

HOSTS = "lmstrix_hosts"
"""In the input of a worker: the hosts that it alone uses."""
_LEVEL = 1
"""Of the compression: the quickest, since models differ in little but their ids."""


def pack_plan(plan: Plan) -> bytes:
    return zlib.compress(msgspec.json.encode(plan), _LEVEL)


def unpack_plan(packed: bytes) -> Plan:
    return msgspec.json.decode(zlib.decompress(packed), type=Plan)


def plan_from_controller(config: pytest.Config) -> Plan | None:
    """Return the plan of the controller, if this process is a worker."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    return unpack_plan(worker[PLAN]) if worker is not None else None


def own_hosts(config: pytest.Config, hosts: Sequence[str]) -> list[str]:
    """Return those of `hosts` that this process prefers to the others: all without workers."""
    worker: dict[str, list[str]] = getattr(config, "workerinput", {})
    return worker.get(HOSTS, list(hosts))


class Pause(pytest.Item):
    """An item after all tests, at which a worker waits for its next model.

    A worker starts a test only when it knows the next one. With a pause for the next one, it ends a
    model, and unloads it, before the controller chooses what follows.
    """

    def runtest(self) -> None:
        """Do nothing."""

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], *_: object
    ) -> TerminalRepr:
        """Show where a fixture failed, without what called it."""
        return excinfo.getrepr(style="short", tbfilter=lambda info: info.traceback[-1:])


class Pauses:
    """Plugin of a worker: adds a pause to the tests after their ids were sent to the controller."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        session.items.append(Pause.from_parent(session, name="between models"))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        if not isinstance(item, Pause):
            if isinstance(nextitem, Pause):
                nextitem.parent = item.parent  # so that the fixtures of its module stay set up
            return None
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            if report.when == "teardown" and report.failed:  # of fixtures of modules and above
                item.ihook.pytest_runtest_logreport(report=report)
        return True
