"""Compares the results of a run with earlier, comparable ones to find changes. Pure.

Comparable are results of the same weights, load settings and check (including its version). Those
of the same engine, host and machine, with any engine version, are the baseline: an earlier version
is named. Without any, the newest of another setup are: such a change names the difference and is
never a regression. A regression stays one until the size works again or the break is accepted.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from msgspec.structs import replace

from pytest_lmstrix.core.checks import evidence_of
from pytest_lmstrix.core.types import Acceptance, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.fold import Fold
from pytest_lmstrix.registry.history.change import KINDS, SPEEDS, Change, Kind, Measure
from pytest_lmstrix.registry.history.proportions import Proportion, is_worse, usual_and_recent
from pytest_lmstrix.registry.history.since import Break, Timelines, remote_host
from pytest_lmstrix.registry.history.speeds import Sample, significant_ratio

PERCENT = 25.0
"""Smaller deviations of a speed from the median of its history are ignored."""
MOST_HISTORY = 20
"""Newest results kept as the history of each setup, check and size."""
LEAST_SECONDS = 0.1
"""Smaller deviations of a time are ignored, whatever the percentage."""
_BROKEN = ("bad", "open", "model")


class History:
    """The newest earlier results of each setup, check and size; added oldest first."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, dict[_Key, deque[tuple[int, Result]]]] = defaultdict(dict)
        self._count = 0
        self._accepted: dict[str, int] = {}
        self.timelines = Timelines()

    def accept(self, acceptance: Acceptance) -> None:
        """Accept the failures and speeds of a model so far as they are."""
        self.timelines.accept(acceptance)
        self._accepted[acceptance.model] = self._count

    def add(self, result: Result) -> None:
        """Add the next result; `host_trouble` withdraws those of its run, check and size.

        Imported results are ignored.
        """
        if result.imported:
            return
        if result.verdict is Verdict.HOST_TROUBLE:
            self._withdraw(result)
            self.timelines.add(result)
        if result.verdict.evidence == "none":
            return
        self._count += 1
        self.timelines.add(result)
        kept = self._kept[result.model]
        recent = kept.setdefault(_key(result), deque(maxlen=MOST_HISTORY))
        recent.append((self._count, result))

    def _withdraw(self, trouble: Result) -> None:
        kept = self._kept[trouble.model].get(_key(trouble), deque())
        while kept and kept[-1][1].run == trouble.run:
            kept.pop()

    def of(self, model: str) -> list[Result]:
        """Return the kept results of `model`, oldest first."""
        kept = (pair for recent in self._kept.get(model, {}).values() for pair in recent)
        return [result for _, result in sorted(kept, key=lambda pair: pair[0])]

    def since_accepted(self, model: str) -> list[Result]:
        """Return the kept results of `model` after its last acceptance, oldest first."""
        accepted = self._accepted.get(model, 0)
        kept = (pair for recent in self._kept.get(model, {}).values() for pair in recent)
        newer = sorted((pair for pair in kept if pair[0] > accepted), key=lambda pair: pair[0])
        return [result for _, result in newer]


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
        newest = {_key(result): result for result in results}.values()
        for result in newest:
            alike = [old for old in earlier if _alike(old, result)]
            changes += _of_case(result, alike, history.timelines.before(result))
        changes += speed_changes(newest, history.since_accepted(model), percent)
    return tuple(sorted(changes, key=lambda change: KINDS.index(change.kind)))


_Key = tuple[object, ...]


def _setup(result: Result) -> _Key:
    return result.engine, remote_host(result.host), result.machine


def _key(result: Result) -> _Key:
    return (*_setup(result), result.engine_version, result.fingerprint, result.settings,
            result.check, result.check_version, result.context_length)  # fmt: skip


def _same_weights(one: Result, other: Result) -> bool:
    """Unknown weights may be the same, but cannot show that the known ones work."""
    return one.fingerprint == other.fingerprint or any(
        result.fingerprint is None and result.verdict.evidence != "good" for result in (one, other)
    )


def _alike(old: Result, new: Result) -> bool:
    return _same_weights(old, new) and (
        (old.settings, old.check, old.check_version, old.context_length)
        == (new.settings, new.check, new.check_version, new.context_length)
    )


def _of_case(new: Result, alike: Sequence[Result], known: Break | None) -> list[Change]:
    if not alike:
        return []
    same = [old for old in alike if _setup(old) == _setup(new)]
    if not same:
        return list(filter(None, [_verdicts(alike[-1], new, _difference(alike[-1], new))]))
    usual, recent = usual_and_recent(same, new)
    if usual is not None and recent is not None:
        return _samples(same[-1], new, usual, recent)
    broken = new.verdict.evidence in _BROKEN and same[-1].verdict.evidence != "good"
    if broken and known is not None and known.accepted is None:
        return [_break(new, known)]
    return list(filter(None, [_verdicts(same[-1], new, "")]))


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


def speed_changes(
    now: Iterable[Result], earlier: Sequence[Result], percent: float
) -> Iterator[Change]:
    """Compare the speeds of a model: all its checks and sizes are samples of one comparison.

    Speeds are compared with those of the same engine version; without a difference, or without
    any, with those of the newest other version.
    """
    setups: defaultdict[_Key, list[Result]] = defaultdict(list)
    for result in now:
        if result.verdict.evidence == "good":
            setups[*_setup(result), result.fingerprint, result.settings].append(result)
    for results in setups.values():
        new = results[-1]
        old = [each for each in earlier
               if _setup(each) == _setup(new) and each.verdict.evidence == "good"]  # fmt: skip
        version = new.engine_version
        others = [each.engine_version for each in old if each.engine_version != version]
        for measure in SPEEDS:
            for compared in (version, *others[-1:]):
                baseline = [each for each in old if each.engine_version == compared]
                change = _speed(measure, baseline, results, percent)
                if change is not None:
                    yield change
                    break


def _speed(
    measure: Measure, earlier: Sequence[Result], now: Sequence[Result], percent: float
) -> Change | None:
    samples: list[Sample] = []
    for new in now:
        value: float | None = getattr(new, measure)
        usual = [v for old in earlier if _alike(old, new) and (v := getattr(old, measure))]
        if value and usual:
            samples.append(Sample(new, value, tuple(usual)))
    is_time = measure in ("ttft_seconds", "load_seconds")
    ratio = significant_ratio(samples, percent / 100, LEAST_SECONDS if is_time else 0)
    if ratio is None:
        return None
    new = samples[-1].result
    history = [value for sample in samples for value in sample.usual]
    alone = len(samples) == 1
    return Change(
        kind="slower" if (ratio > 1) == is_time else "faster", measure=measure, model=new.model,
        check=new.check if alone else None, context_length=new.context_length if alone else None,
        before=median(median(sample.usual) for sample in samples),
        after=median(sample.value for sample in samples), ratio=ratio,
        spread=(min(history), max(history)), history=len(history), sizes=len(samples),
        earlier_version=_earlier_version(earlier[-1].engine_version, new),
    )  # fmt: skip


def _contexts(results: Sequence[Result], earlier: Sequence[Result]) -> Iterable[Change]:
    """Compare the verified contexts before and after, for each setup of the results."""
    setups: defaultdict[_Key, list[Result]] = defaultdict(list)
    for result in results:
        if result.verdict.evidence in ("good", "bad", "open"):  # evidence about its size
            setups[*_setup(result), result.fingerprint, result.settings].append(result)
    for now in setups.values():
        newest = now[-1]
        versions = {result.check: result.check_version for result in now}
        before = [
            old
            for old in earlier
            if _setup(old) == _setup(newest)
            and old.settings == newest.settings
            and _same_weights(old, newest)
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


def _evidence(result: Result) -> _Key:
    return evidence_of(result.check), result.context_length


def _verified(newest: Result, lines: Iterable[Result]) -> int | None:
    fold = Fold()
    for line in lines:
        fold.add(line)
    status = fold.status(newest.model, fingerprint=newest.fingerprint)
    return status.verified_context if status else None
