"""The hosts on which a model may be tested, and the sizes that fit there. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

from msgspec.structs import replace

from pytest_lmstrix.core.formatting import file_size, tokens
from pytest_lmstrix.core.types import Host, Model
from pytest_lmstrix.plan.plan import PlannedModel

NO_SIZE = 0
"""`PlannedModel.unfit_from` of a model of which no size can be tested anywhere."""


def asked_of(model: Model, hosts: Sequence[Host]) -> tuple[Host, ...]:
    """Return those of `hosts` that `model` asks for, by name or tag: all if it asks for none."""
    wanted = set(model.hosts)
    return tuple(each for each in hosts if not wanted or wanted & {each.name, *each.tags})


def without_host(planned: PlannedModel, hosts: Sequence[Host]) -> PlannedModel:
    """Return `planned` as a model that asks for none of `hosts`, those of its engine."""
    names = ", ".join(map(_name, hosts)) or "none"
    reason = (
        f"asks for a host that is or has {' or '.join(planned.model.hosts)}; the hosts of engine"
        f" {planned.model.engine} in this run: {names}"
    )
    return replace(planned, unfit_from=NO_SIZE, unfit=reason)


def placed(
    planned: PlannedModel, hosts: Sequence[Host], least_bytes: Callable[[int], int | None]
) -> PlannedModel:
    """Return `planned` on those of `hosts` where most of its sizes fit.

    `least_bytes` is the least memory that it needs at a context length, `None` if unknown.
    """
    if all(host.memory_bytes is None for host in hosts):
        return planned
    sizes = planned.context_lengths
    needs = tuple(least_bytes(size) or 0 for size in sizes)
    fitting = {host.address: sum(_fits(host, need) for need in needs) for host in hosts}
    most = max(fitting.values())
    if most == len(sizes):
        unfit_from, reason = None, ""
    else:
        weights = planned.model.size_bytes or 0
        too_large = all(not _fits(host, weights) for host in hosts)
        unfit_from = NO_SIZE if too_large else sizes[most]
        reason = _does_not_fit(hosts, sizes[most], needs[most])
    return replace(
        planned,
        hosts=tuple(address for address, count in fitting.items() if count == most),
        bytes_needed=needs,
        unfit_from=unfit_from,
        unfit=reason,
    )


def slots_taken(planned: PlannedModel | None, context_length: int, host: Host) -> int:
    """Return how many slots of `host` a load takes: more than one if it needs more than its share.

    So what is loaded at once on a host never needs more than its memory.
    """
    if planned is None or not planned.bytes_needed or host.memory_bytes is None:
        return 1
    sizes = zip(planned.context_lengths, planned.bytes_needed, strict=True)
    need = max((need for size, need in sizes if size <= context_length),
               default=planned.model.size_bytes or 0)  # fmt: skip
    return min(host.slots, max(1, ceil(need * host.slots / host.memory_bytes)))


def _fits(host: Host, need: int) -> bool:
    return host.memory_bytes is None or need <= host.memory_bytes


def _does_not_fit(hosts: Sequence[Host], size: int, need: int) -> str:
    has = ", ".join(f"{_name(host)} has {file_size(host.memory_bytes)}" for host in hosts)
    return f"does not fit: needs at least {file_size(need)} at {tokens(size)} tokens; {has}"


def _name(host: Host) -> str:
    return host.name or host.address
