"""Since when a model works or fails: its line of time, in constant memory for each check and size.

A line of time belongs to a model with one engine, place (machine and remote host), weights,
settings and check; it spans engine versions, whose changes are what breaks models. Only verdicts
about the model or the size count, and no size search. A failure without known weights (a missing
model has none) belongs to the newest known ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Literal, NamedTuple

from msgspec import Struct

from pytest_lmstrix.core.checks import CHECKS
from pytest_lmstrix.core.types import Acceptance, Result
from pytest_lmstrix.core.verdicts import TRAITS, Verdict
from pytest_lmstrix.system.addresses import remote_host

State = Literal["works", "broken", "never_worked"]

FLAPPING = 3
"""From this many changes between working and failing on, their number is mentioned."""
_WORKS: dict[Verdict, bool | None] = {
    verdict: traits.evidence == "good"
    if traits.subject in ("model", "size") and traits.evidence not in ("unclear", "none")
    else None
    for verdict, traits in TRAITS.items()
}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_STRONGEST = ("deep", "full", "limit", "fast", "speed", "capability")


class Moment(Struct, frozen=True, kw_only=True, gc=False):
    """One result on a line of time."""

    at: datetime
    engine_version: str | None = None
    context_length: int
    verdict: Verdict


class Since(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Since when one check of a model works, or does not, at the place where it was tested.

    A check is `broken` if any size fails that worked before; the smallest such size is described.
    """

    model: str
    engine: str
    machine: str | None = None
    host: str | None = None
    """A remote host; `None` for the machine itself."""
    fingerprint: str | None = None
    settings: str = ""
    check: str
    state: State
    began: Moment
    """The first result of the current state."""
    newest: Moment
    """The newest result of the size of `began`."""
    last_good: Moment | None = None
    """The last pass, before `first_bad` if that is known."""
    first_bad: Moment | None = None
    """The first failure since `last_good`; `None` if it works."""
    smaller_works: bool = False
    """Whether a size below that of `first_bad` works."""
    flaps: int = 0
    """The changes between working and failing, of the size with the most."""
    accepted: Acceptance | None = None
    """The break was accepted as it is."""

    @property
    def seconds(self) -> float:
        """How long the state has lasted, from its first to its newest result."""
        return max(0.0, (self.newest.at - self.began.at).total_seconds())


class LineKey(NamedTuple):
    """What a line of time belongs to, besides the model and the size."""

    engine: str
    machine: str | None
    host: str | None
    fingerprint: str | None
    settings: str
    check: str
    check_version: int


class _Line:
    """The line of time of one size."""

    __slots__ = ("accepted", "began", "flaps", "last_good", "newest", "order", "run", "saved",
                 "works")  # fmt: skip

    def __init__(self, result: Result, works: bool) -> None:
        self.works = works
        self.began = self.newest = result_moment(result)
        self.last_good = self.began if works else None
        self.flaps = 0
        self.order = 0
        self.accepted: Acceptance | None = None
        self.run = result.run
        self.saved: tuple[object, ...] | None = None
        """The state before the run of the newest result, which may be withdrawn."""

    def add(self, result: Result, works: bool) -> None:
        if result.run != self.run:
            self.run = result.run
            self.saved = (self.works, self.began, self.newest, self.last_good, self.flaps,
                          self.accepted)  # fmt: skip
        self.newest = result_moment(result)
        if works is not self.works:
            self.works = works
            self.began = self.newest
            self.flaps += 1
            self.accepted = None
        if works:
            self.last_good = self.newest

    def withdraw(self) -> bool:
        """Return to the state before the newest run; `False` if there was none."""
        if self.saved is None:
            return False
        (self.works, self.began, self.newest, self.last_good, self.flaps,
         self.accepted) = self.saved  # type: ignore[assignment] # fmt: skip
        return True

    @property
    def state(self) -> State:
        if self.works:
            return "works"
        return "broken" if self.last_good is not None else "never_worked"


class Break(NamedTuple):
    """A size that worked before and fails now."""

    last_good: Moment
    first_bad: Moment | None
    """`None` if it still worked at its last result."""
    accepted: Acceptance | None


class Flip(NamedTuple):
    """A size that works now and failed before, or fails now and worked before."""

    broke: bool
    before: Moment
    """The last pass if it broke, else the first failure."""


class Timelines:
    """Accumulates the lines of time of all models, in the order of the file."""

    def __init__(self) -> None:
        self._models: dict[str, dict[LineKey, dict[int, _Line]]] = {}
        self._weights: dict[tuple[str, str, str], str] = {}
        """Model, engine and settings -> the newest fingerprint."""
        self._count = 0

    def add(self, result: Result) -> Flip | None:
        """Add the next result, and return the change of its size, if it is one.

        Results that do not count are ignored. `host_trouble` withdraws those of its run, check and
        size.
        """
        works = _WORKS[result.verdict]
        if result.verdict is Verdict.HOST_TROUBLE:
            self._withdraw(result)
        if works is None or result.origin == "search":
            return None
        self._count += 1
        if result.fingerprint is not None:
            self._weights[result.model, result.engine, result.settings] = result.fingerprint
        sizes = self._models.setdefault(result.model, {}).setdefault(self._key(result, works), {})
        flip = None
        line = sizes.get(result.context_length)
        if line is None:
            line = sizes[result.context_length] = _Line(result, works)
        else:
            if works is not line.works and line.last_good is not None:
                flip = Flip(broke=line.works, before=line.last_good if line.works else line.began)
            line.add(result, works)
        line.order = self._count
        return flip

    def _withdraw(self, trouble: Result) -> None:
        sizes = self._models.get(trouble.model, {}).get(self._key(trouble, False), {})
        line = sizes.get(trouble.context_length)
        if line is not None and line.run == trouble.run and not line.withdraw():
            del sizes[trouble.context_length]

    def accept(self, acceptance: Acceptance) -> None:
        """Accept every failure of the model as it is."""
        for sizes in self._models.get(acceptance.model, {}).values():
            for line in sizes.values():
                if not line.works:
                    line.accepted = acceptance

    def before(self, result: Result) -> Break | None:
        """Return what was known of the check and size of `result`; `None` if it never worked."""
        key = self._key(result, _WORKS[result.verdict] or False)
        line = self._models.get(result.model, {}).get(key, {}).get(result.context_length)
        if line is None or line.last_good is None:
            return None
        return Break(line.last_good, None if line.works else line.began, line.accepted)

    def of(self, model: str) -> tuple[Since, ...]:
        """Return since when each check of `model` works or fails, the newest first."""
        newest: dict[LineKey, tuple[int, int]] = {}
        keys = {key: sizes for key, sizes in self._models.get(model, {}).items() if sizes}
        for key in keys:
            known = newest.setdefault(key._replace(check_version=0), (0, 0))
            newest[key._replace(check_version=0)] = max(known, (_order(keys[key]),
                                                               key.check_version))  # fmt: skip
        current = sorted(newest.items(), key=lambda item: item[1], reverse=True)
        return tuple(
            _since(model, key, keys[key._replace(check_version=version)])
            for key, (_, version) in current
        )

    def _key(self, result: Result, works: bool) -> LineKey:
        fingerprint = result.fingerprint
        if fingerprint is None and not works:
            fingerprint = self._weights.get((result.model, result.engine, result.settings))
        return LineKey(
            result.engine, result.machine, remote_host(result.host), fingerprint,
            result.settings, result.check, result.check_version,
        )  # fmt: skip


def result_moment(result: Result) -> Moment:
    return Moment(
        at=result.at,
        engine_version=result.engine_version,
        context_length=result.context_length,
        verdict=result.verdict,
    )


def most_relevant(found: Iterable[Since], machine: str | None = None) -> Since | None:
    """Return the one to show of a model: breaks first, then the strongest check, then the newest.

    Those of `machine` are preferred to those of others.
    """
    return min(found, key=lambda since: (since.machine != machine, *_rank(since)), default=None)


def since_text(since: Since, *, today: date) -> str:
    """Return a sentence: `Worked with 0.4.18, broken since 0.4.19 (2 Nov)`."""
    good, bad = since.last_good, since.first_bad
    if bad is None:
        text = f"Works since {_start(since.began, today)}"
    elif good is None:
        text = f"Never worked, tested since {_start(bad, today)}"
    else:
        size = f" at {bad.context_length:,}" if since.smaller_works else ""
        if good.engine_version and bad.engine_version not in (None, good.engine_version):
            text = f"Worked{size} with {good.engine_version}"
        else:
            text = f"Worked{size} until {day(good.at, today)}"
        text += f", broken since {_start(bad, today)}"
    if since.flaps >= FLAPPING:
        text += f"; changed {since.flaps} times"
    if since.accepted is not None:
        text += f"; accepted by {since.accepted.by} ({day(since.accepted.at, today)})"
    return text


def short_text(since: Since) -> str:
    """Return a cell of a table: `broken 2026-11-02 (0.4.19)`."""
    verb = {"works": "works", "broken": "broken", "never_worked": "never worked"}[since.state]
    version = f" ({since.began.engine_version})" if since.began.engine_version else ""
    return f"{verb} {since.began.at:%Y-%m-%d}{version}"


def day(at: datetime, today: date) -> str:
    """Return `2 Nov`, with the year unless it is that of `today`."""
    year = "" if at.year == today.year else f" {at.year}"
    return f"{at.day} {_MONTHS[at.month - 1]}{year}"


def _start(moment: Moment, today: date) -> str:
    on = day(moment.at, today)
    return f"{moment.engine_version} ({on})" if moment.engine_version else on


def _order(sizes: dict[int, _Line]) -> int:
    return max(line.order for line in sizes.values())


def _rank(since: Since) -> tuple[object, ...]:
    broken = since.state == "broken" and since.accepted is None
    strength = _STRONGEST.index(since.check) if since.check in CHECKS else len(_STRONGEST)
    return (not broken, strength, -since.newest.at.timestamp())


def _since(model: str, key: LineKey, sizes: dict[int, _Line]) -> Since:
    good = [size for size, line in sizes.items() if line.works]
    broken = [size for size, line in sizes.items() if line.state == "broken"]
    open_breaks = [size for size in broken if sizes[size].accepted is None]
    if broken:
        line = sizes[min(open_breaks or broken)]
    elif good:
        # A size tested for the first time changes nothing; one that works again does.
        again = [sizes[size] for size in good if sizes[size].flaps]
        line = max(again, key=lambda each: each.began.at) if again else sizes[_first(sizes, good)]
    else:
        line = sizes[_first(sizes, sizes)]
    return Since(
        model=model,
        engine=key.engine,
        machine=key.machine,
        host=key.host,
        fingerprint=key.fingerprint,
        settings=key.settings,
        check=key.check,
        state=line.state,
        began=line.began,
        newest=line.newest,
        last_good=line.last_good,
        first_bad=None if line.works else line.began,
        smaller_works=bool(good) and min(good) < line.began.context_length,
        flaps=max(each.flaps for each in sizes.values()),
        accepted=line.accepted,
    )


def _first(sizes: dict[int, _Line], among: Iterable[int]) -> int:
    return min(among, key=lambda size: (sizes[size].began.at, -size))
