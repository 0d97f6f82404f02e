"""Compares the results of a run with earlier, comparable ones to find changes. Pure.

Comparable are results of the same weights, load settings and check (including its version). Those
of the same engine, host and machine, with any engine version, are the baseline: an earlier version
is named. Without any, the newest of another setup are: such a change names the difference and is
never a regression. A regression stays one until the size works again or the break is accepted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import takewhile
from statistics import median

from msgspec.structs import replace

from pytest_lmstrix.core.checks import evidence_of
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.registry.fold import Fold
from pytest_lmstrix.registry.history.change import KINDS, SPEEDS, Change, Kind, Measure
from pytest_lmstrix.registry.history.earlier import (
    History,
    Key,
    are_alike,
    line_key,
    same_weights,
    setup_of,
)
from pytest_lmstrix.registry.history.proportions import Proportion, is_worse, usual_and_recent
from pytest_lmstrix.registry.history.since import Break
from pytest_lmstrix.registry.history.speeds import Past, Sample, preferred, significant_ratio

PERCENT = 25.0
"""Smaller deviations of a speed from the median of its history are ignored."""
LEAST_SECONDS = 0.1
"""Smaller deviations of a time are ignored, whatever the percentage."""
_BROKEN = ("bad", "open", "model")


def compare(
    now: Iterable[Result], history: History, *, percent: float = PERCENT
) -> tuple[Change, ...]:
    """Return the changes that the results `now` bring, the worst kind first."""
    of_model: defaultdict[str, list[Result]] = defaultdict(list)
    for result in now:
        if result.verdict.evidence != "none":
            of_model[result.model].append(result)
    changes: list[Change] = []
    for model, results in of_model.items():
        earlier = history.of(model)
        changes += _contexts(results, earlier)
        newest = {line_key(result): result for result in results}.values()
        for result in newest:
            alike = [old for old in earlier if are_alike(old, result)]
            changes += _of_case(result, alike, history.timelines.before(result))
        changes += compare_speeds(newest, history, percent)
    return tuple(sorted(changes, key=lambda change: KINDS.index(change.kind)))


def _of_case(new: Result, alike: Sequence[Result], known: Break | None) -> list[Change]:
    if not alike:
        return []
    same = [old for old in alike if setup_of(old) == setup_of(new)]
    if not same:
        return list(filter(None, [_verdicts(alike[-1], new, _difference(alike[-1], new))]))
    usual, recent = usual_and_recent(same, new)
    if usual is not None and recent is not None:
        return _samples(same[-1], new, usual, recent)
    broken = new.verdict.evidence in _BROKEN and same[-1].verdict.evidence != "good"
    if broken and known is not None and known.accepted is None:
        return [_break(new, known)]
    change = _verdicts(same[-1], new, "")
    if change is not None and change.kind == "newly_working":
        change = replace(change, since=_last_break(same))
    return [change] if change is not None else []


def _last_break(results: Sequence[Result]) -> datetime:
    """Return when the first of the newest results without a good one between them failed."""
    broken = takewhile(lambda each: each.verdict.evidence != "good", reversed(results))
    return min(each.at for each in broken if each.verdict.evidence in _BROKEN)


def _samples(old: Result, new: Result, usual: Proportion, recent: Proportion) -> list[Change]:
    """Return the change of a check with samples: by the counts, for one run is chance."""
    if is_worse(usual, recent):
        return [
            Change(
                kind="less_reliable", measure="passed_samples", model=new.model, check=new.check,
                context_length=new.context_length, before=str(usual), after=str(recent),
                earlier_version=_earlier_version(old.engine_version, new),
            )
        ]  # fmt: skip
    change = _verdicts(old, new, "")
    if change is not None and change.kind == "newly_broken":
        change = replace(change, kind="changed")
    return [change] if change is not None else []


def _break(new: Result, known: Break) -> Change:
    """Return the change of a size that worked before, though not in the result before."""
    good, bad = known.last_good, known.first_bad
    return Change(
        kind="newly_broken" if bad is None else "still_broken", measure="verdict",
        model=new.model, check=new.check, context_length=new.context_length,
        before=good.verdict.value, after=new.verdict.value,
        earlier_version=_earlier_version(good.engine_version, new),
        since=None if bad is None else bad.at,
    )  # fmt: skip


def _earlier_version(version: str | None, new: Result) -> str:
    return version if version and version != new.engine_version else ""


def _difference(old: Result, new: Result) -> str:
    if old.machine != new.machine:
        return "before on another machine"
    if old.engine != new.engine:
        return f"before with {' '.join(filter(None, (old.engine, old.engine_version)))}"
    return f"before on {old.host or 'another host'}"


def _verdicts(old: Result, new: Result, elsewhere: str) -> Change | None:
    kind: Kind = "changed"
    if old.verdict.evidence in _BROKEN and new.verdict.evidence == "good":
        kind = "newly_working"
    elif old.verdict.evidence == "good" and new.verdict.evidence in _BROKEN:
        kind = "newly_broken"
    elif old.verdict is new.verdict:
        return None
    return Change(
        kind=kind, measure="verdict", model=new.model, check=new.check, elsewhere=elsewhere,
        context_length=new.context_length, before=old.verdict.value, after=new.verdict.value,
        earlier_version="" if elsewhere else _earlier_version(old.engine_version, new),
    )  # fmt: skip


def compare_speeds(
    now: Iterable[Result], history: History, percent: float = PERCENT
) -> Iterator[Change]:
    """Compare the speeds of a model: all its checks and sizes are samples of one comparison.

    Speeds are compared with those of the same engine version; without a difference, or without
    any, with those of the newest other version; and then with the baseline, so that a slow-down
    does not become usual.
    """
    setups: defaultdict[Key, list[Result]] = defaultdict(list)
    for result in now:
        if result.verdict.evidence == "good":
            setups[*setup_of(result), result.fingerprint, result.settings].append(result)
    for results in setups.values():
        new = results[-1]
        old = [each for each in history.since_accepted(new.model)
               if setup_of(each) == setup_of(new) and each.verdict.evidence == "good"]  # fmt: skip
        version = new.engine_version
        others = [each.engine_version for each in old if each.engine_version != version]
        for measure in SPEEDS:
            for compared in (version, *others[-1:]):
                same = [each for each in old if each.engine_version == compared]
                pairs = [(each, [v for v in same if are_alike(v, each)]) for each in results]
                change = _speed(measure, pairs, percent)
                if change is not None:
                    yield change
                    break
            else:
                base = [(each, history.baselines.of(each, measure)) for each in results]
                change = _speed(measure, base, percent)
                if change is not None and change.kind == "slower":
                    first = min(past.at for _, found in base for past in found)
                    yield replace(change, baseline=first)


def _speed(
    measure: Measure, pairs: Iterable[tuple[Result, Sequence[Past]]], percent: float
) -> Change | None:
    """Compare each result with the earlier ones beside it."""
    compared = [
        (Sample(new, value, usual), before[-1].engine_version)
        for new, before in pairs
        if (value := getattr(new, measure))
        and (usual := tuple(v for old in before if (v := getattr(old, measure))))
    ]
    if measure == "load_seconds":  # several results of one load are one measurement
        compared = list({sample.value: (sample, at) for sample, at in reversed(compared)}.values())
    else:
        compared = list(preferred(compared))
    samples = [sample for sample, _ in compared]
    is_time = measure in ("ttft_seconds", "load_seconds")
    ratio = significant_ratio(samples, percent / 100, LEAST_SECONDS if is_time else 0)
    if ratio is None:
        return None
    new, version = samples[-1].result, compared[-1][1]
    history = [value for sample in samples for value in sample.usual]
    alone = len(samples) == 1
    return Change(
        kind="slower" if (ratio > 1) == is_time else "faster", measure=measure, model=new.model,
        check=new.check if alone else None, context_length=new.context_length if alone else None,
        before=median(median(sample.usual) for sample in samples),
        after=median(sample.value for sample in samples), ratio=ratio,
        spread=(min(history), max(history)), history=len(history), sizes=len(samples),
        earlier_version=_earlier_version(version, new),
    )  # fmt: skip


def _contexts(results: Sequence[Result], earlier: Sequence[Result]) -> Iterable[Change]:
    """Compare the verified contexts before and after, for each setup of the results."""
    setups: defaultdict[Key, list[Result]] = defaultdict(list)
    for result in results:
        if result.verdict.evidence in ("good", "bad", "open"):  # evidence about its size
            setups[*setup_of(result), result.fingerprint, result.settings].append(result)
    for now in setups.values():
        newest = now[-1]
        versions = {result.check: result.check_version for result in now}
        before = [
            old
            for old in earlier
            if setup_of(old) == setup_of(newest)
            and old.settings == newest.settings
            and same_weights(old, newest)
            and versions.get(old.check, old.check_version) == old.check_version
        ]
        was, is_now = _verified(newest, before), _verified(newest, [*before, *now])
        if was is None or was == is_now:
            continue
        larger = (is_now or 0) > was
        if larger or (_verified(newest, [*before, *_known_good(before, now)]) or 0) < was:
            yield Change(
                kind="larger_context" if larger else "smaller_context",
                measure="verified_context", model=newest.model, before=was, after=is_now,
                earlier_version=_earlier_version(before[-1].engine_version, newest),
            )  # fmt: skip


def _known_good(before: Sequence[Result], now: Sequence[Result]) -> list[Result]:
    """Return those of `now` whose check and size were good: only they can show a regression.

    A size that was not tested before may have failed before, too.
    """
    last = {_evidence(old): old.verdict.evidence for old in before}
    return [new for new in now if last.get(_evidence(new)) == "good"]


def _evidence(result: Result) -> Key:
    return evidence_of(result.check), result.context_length


def _verified(newest: Result, lines: Iterable[Result]) -> int | None:
    fold = Fold()
    for line in lines:
        fold.add(line)
    status = fold.status(newest.model, fingerprint=newest.fingerprint)
    return status.verified_context if status else None
