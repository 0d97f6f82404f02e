"""Cached results of earlier runs that are still valid: same weights, settings, engine, machine.

Pure; a `Known` is the registry's newest result of a check at a size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_lmstrix.core.checks import CHECKS, PROVABLE, evidence_of
from pytest_lmstrix.core.types import Case, Model, settings_of
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.plan.plan import KnownRange, PlannedModel, check_key
from pytest_lmstrix.plan.size_search import tolerance
from pytest_lmstrix.registry.known import Known, current

SETTLED = (Verdict.OK, Verdict.INCONCLUSIVE)
"""Not tested again: a probe that cannot judge a model now cannot do so tomorrow."""


def still_valid(
    known: Iterable[Known], model: Model, *, engine_version: str | None, machine: str
) -> list[Known]:
    """Return the results of the same setup and check versions as now."""
    return [
        each
        for each in known
        if each.engine == model.engine
        and each.engine_version == engine_version
        and each.machine == machine
        and each.fingerprint == model.fingerprint
        and each.settings == settings_of(model)
        and (each.check not in CHECKS or each.check_version == CHECKS[each.check].version)
    ]


def settled(known: Sequence[Known], planned: PlannedModel) -> dict[str, int]:
    """Return `Plan.known`; of several hosts, the newest verdict counts, which comes first.

    A speed is measured again in each run: it is compared, and not a property of the weights.
    """
    newest: dict[str, Known] = {}
    for each in known:
        if each.check not in ("limit", "speed"):  # the answer of `limit` is at another size
            case = Case(model=planned.model, context_length=each.context_length)
            newest.setdefault(check_key(each.check, case.id), each)
    versions = {
        key: each.check_version
        for key, each in newest.items()
        if each.verdict in SETTLED and not _is_outdated(each, planned.model)
    }
    whole = planned.whole()
    found = ranges(known, planned.model).get(check_key("full", planned.model.id), KnownRange())
    if _is_limit(found, whole.context_length) and any(
        each.check == "limit" and each.context_length == found.good for each in known
    ):
        versions[check_key("limit", whole.id)] = CHECKS["limit"].version
    return versions


def _is_outdated(known: Known, model: Model) -> bool:
    """Whether `model` has been declared a capability since."""
    declared = set(PROVABLE).intersection(model.capabilities)
    return known.check == "capability" and not declared <= set(known.capabilities or ())


def ranges(known: Iterable[Known], model: Model) -> dict[str, KnownRange]:
    """Return `Plan.ranges`, by the newest verdict at each size."""
    newest: dict[str, dict[int, Verdict]] = {}
    for each in current(known):
        evidence = evidence_of(each.check)
        if evidence in ("full", "deep"):
            newest.setdefault(evidence, {}).setdefault(each.context_length, each.verdict)
    return {check_key(check, model.id): _range(sizes) for check, sizes in newest.items()}


def speeds(known: Iterable[Known], model: Model) -> dict[str, dict[int, float]]:
    """Return `Plan.speeds`, by the newest measurement at each size."""
    newest: dict[str, dict[int, float]] = {}
    for each in known:
        if each.decode_tokens_per_second is not None:
            key = check_key(evidence_of(each.check), model.id)
            newest.setdefault(key, {}).setdefault(
                each.context_length, each.decode_tokens_per_second
            )
    return newest


def _range(sizes: dict[int, Verdict]) -> KnownRange:
    good = max((size for size, verdict in sizes.items() if verdict is Verdict.OK), default=None)
    bad = min(
        (
            size
            for size, verdict in sizes.items()
            if verdict.smaller_may_help and size > (good or 0)
        ),
        default=None,
    )
    return KnownRange(good=good, bad=bad)


def _is_limit(known: KnownRange, most: int) -> bool:
    if known.good is None:
        return False
    return known.good >= most or (
        known.bad is not None and known.bad - known.good <= tolerance(known.good)
    )
