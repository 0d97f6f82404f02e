"""A worker of pytest-xdist: the plan and the hosts from its controller."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

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
