"""Compares the results of a run with earlier, comparable ones to find changes. Pure.

Comparable are results of the same weights, load settings and check (including its version). Among
them, those of the same engine, engine version, host and machine are the baseline; without any, the
newest of another setup are: such a change names the difference and is never a regression.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal, get_args

from msgspec import Struct

from pytest_lmstrix.core.checks import evidence_of
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.fold import Fold

Kind = Literal[
    "newly_broken", "smaller_context", "slower", "changed",
    "newly_working", "larger_context", "faster",
]  # fmt: skip
Measure = Literal[
    "verdict",
    "verified_context",
    "decode_tokens_per_second",
    "prefill_tokens_per_second",
    "ttft_seconds",
    "load_seconds",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Worst first."""

PERCENT = 25.0
"""Smaller deviations of a speed from the median of its history are ignored."""
LEAST_HISTORY = 3
"""Earlier values required to compare a speed."""
MOST_HISTORY = 20
"""Newest results kept as the history of each setup, check and size."""
LEAST_SECONDS = 0.1
"""Smaller deviations of a time are ignored, whatever the percentage."""
NOISE_DEVIATIONS = 3 * 1.4826
"""Three standard deviations, in median absolute deviations of a normal distribution."""
SPEEDS: tuple[Measure, ...] = (
    "decode_tokens_per_second", "prefill_tokens_per_second", "ttft_seconds", "load_seconds",
)  # fmt: skip

_GATED = ("newly_broken", "smaller_context", "slower")
_BROKEN = ("bad", "open", "model")


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One difference from the results before."""

    kind: Kind
    measure: Measure
    model: str
    check: str | None = None
    """`None` for a verified context."""
    context_length: int | None = None
    """Tokens; `None` for a verified context."""
    before: str | int | float | None
    """A verdict, tokens, or the median of `history` values."""
    after: str | int | float | None
    spread: tuple[float, float] | None = None
    """The lowest and highest of the values whose median is `before`."""
    history: int = 1
    """Number of earlier results in the comparison."""
    elsewhere: str = ""
    """The difference in setup: another machine, host, engine or engine version."""

    @property
    def is_regression(self) -> bool:
        """Whether it is a change for the worse in the same setup.

        Load times depend on the disk cache: they are reported, but are not regressions.
        """
        return self.kind in _GATED and not self.elsewhere and self.measure != "load_seconds"


class History:
    """The newest earlier results of each setup, check and size; added oldest first."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, dict[_Key, deque[tuple[int, Result]]]] = defaultdict(dict)
        self._count = 0

    def add(self, result: Result) -> None:
        """Add the next result; `host_trouble` withdraws those of its run, check and size.

        Imported results are ignored.
        """
        if result.imported:
            return
        if result.verdict is Verdict.HOST_TROUBLE:
            self._withdraw(result)
        if result.verdict.evidence == "none":
            return
        self._count += 1
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
        for result in {_key(result): result for result in results}.values():
            changes += _of_case(result, [old for old in earlier if _alike(old, result)], percent)
    return tuple(sorted(changes, key=lambda change: KINDS.index(change.kind)))


_Key = tuple[object, ...]


def _setup(result: Result) -> _Key:
    return result.engine, result.engine_version, result.host, result.machine


def _key(result: Result) -> _Key:
    return (*_setup(result), result.fingerprint, result.settings, result.check,
            result.check_version, result.context_length)  # fmt: skip


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


def _of_case(new: Result, alike: Sequence[Result], percent: float) -> list[Change]:
    if not alike:
        return []
    same = [old for old in alike if _setup(old) == _setup(new)]
    others = [old for old in alike if _setup(old) == _setup(alike[-1])]
    compared = same or others
    elsewhere = "" if same else _difference(others[-1], new)
    changes = [_verdicts(compared[-1], new, elsewhere)]
    if compared[-1].machine == new.machine and compared[-1].host == new.host:
        good = [old for old in compared if old.verdict.evidence == "good"]
        if new.verdict.evidence == "good":
            changes += [_speeds(measure, good, new, percent, elsewhere) for measure in SPEEDS]
    return [change for change in changes if change is not None]


def _difference(old: Result, new: Result) -> str:
    engines = [" ".join(filter(None, (each.engine, each.engine_version))) for each in (old, new)]
    if old.machine != new.machine:
        return "before on another machine"
    if engines[0] != engines[1]:
        return f"before with {engines[0]}"
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
    )  # fmt: skip


def _speeds(
    measure: Measure, good: Sequence[Result], new: Result, percent: float, elsewhere: str
) -> Change | None:
    values: list[float] = [v for old in good if (v := getattr(old, measure)) is not None]
    value: float | None = getattr(new, measure)
    if value is None or len(values) < LEAST_HISTORY:
        return None
    usual = median(values)
    noise = NOISE_DEVIATIONS * median(abs(each - usual) for each in values)
    is_time = measure.endswith("_seconds") and not measure.endswith("per_second")
    margin = max(noise, usual * percent / 100, LEAST_SECONDS if is_time else 0)
    if abs(value - usual) <= margin:
        return None
    return Change(
        kind="slower" if (value > usual) == is_time else "faster",
        measure=measure, model=new.model, check=new.check, context_length=new.context_length,
        before=usual, after=value, spread=(min(values), max(values)), history=len(values),
        elsewhere=elsewhere,
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
