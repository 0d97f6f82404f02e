"""What earlier runs have shown, as far as it still holds: same weights, settings, engine, machine.

Pure; `Known` is what the registry remembers of a check at a size.
"""

from __future__ import annotations

from collections.abc import Iterable

from pytest_lmstrix.judging import settings_of
from pytest_lmstrix.plan import KnownRange, check_key
from pytest_lmstrix.registry_fold import BUILT_IN, Known
from pytest_lmstrix.types import Case, Model
from pytest_lmstrix.verdicts import Verdict

SETTLED = (Verdict.OK, Verdict.INCONCLUSIVE)
"""What is not asked again: a probe that cannot judge a model will not do so tomorrow."""


def still_holding(
    known: Iterable[Known], model: Model, *, engine_version: str | None, machine: str
) -> list[Known]:
    """Those of `known` that were found with what `model` would meet now."""
    return [
        each
        for each in known
        if each.engine == model.engine
        and each.engine_version == engine_version
        and each.machine == machine
        and each.fingerprint == model.fingerprint
        and each.settings == settings_of(model)
    ]


def settled(known: Iterable[Known], model: Model) -> dict[str, int]:
    """For `Plan.known`; of several hosts, the newest verdict counts, which comes first."""
    newest: dict[str, Known] = {}
    for each in known:
        case = Case(model=model, context_length=each.context_length)
        newest.setdefault(check_key(each.check, case.id), each)
    return {key: each.check_version for key, each in newest.items() if each.verdict in SETTLED}


def ranges(known: Iterable[Known], model: Model) -> dict[str, KnownRange]:
    """For `Plan.ranges`, by the newest verdict at each size."""
    newest: dict[str, dict[int, Verdict]] = {}
    for each in known:
        evidence = BUILT_IN.get(each.check)
        if evidence in ("full", "deep"):
            newest.setdefault(evidence, {}).setdefault(each.context_length, each.verdict)
    return {check_key(check, model.id): _range(sizes) for check, sizes in newest.items()}


def _range(sizes: dict[int, Verdict]) -> KnownRange:
    good = max((size for size, verdict in sizes.items() if verdict is Verdict.OK), default=None)
    bad = min(
        (size for size, verdict in sizes.items() if verdict.goes_down and size > (good or 0)),
        default=None,
    )
    return KnownRange(good=good, bad=bad)
