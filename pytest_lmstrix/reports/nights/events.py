"""What broke when: the changes between working and failing, in the order of the registry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Literal

from msgspec import Struct

from pytest_lmstrix.core.types import Acceptance, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.history.since import Moment, Timelines, result_moment

EventKind = Literal["broke", "works_again", "accepted"]


class Event(Struct, frozen=True, kw_only=True):
    """A model began to fail, or to work again, or its failures were accepted."""

    kind: EventKind
    night: date
    model: str
    engine: str = ""
    check: str = ""
    moment: Moment | None = None
    """The first result of the new state; `None` if accepted."""
    before: Moment | None = None
    """The last pass, or the first failure."""
    run: str = ""
    by: str = ""
    """The user who accepted the failures."""


class Events:
    """Accumulates the events of the newest nights."""

    def __init__(self) -> None:
        self._timelines = Timelines()
        self._nights: dict[date, dict[tuple[str, ...], Event]] = {}

    def add(self, result: Result, night: date) -> None:
        """Add the next result of the file."""
        flip = self._timelines.add(result)
        if result.verdict is Verdict.HOST_TROUBLE:
            self._withdraw(result, night)
        if flip is None:
            return
        event = Event(
            kind="broke" if flip.broke else "works_again",
            night=night,
            model=result.model,
            engine=result.engine,
            check=result.check,
            moment=result_moment(result),
            before=flip.before,
            run=result.run,
        )
        self._nights.setdefault(night, {})[_key(result)] = event

    def _withdraw(self, trouble: Result, night: date) -> None:
        self._nights.get(night, {}).pop(_key(trouble), None)

    def accept(self, acceptance: Acceptance) -> None:
        """Add the next acceptance of the file."""
        self._timelines.accept(acceptance)
        night = acceptance.at.date()
        event = Event(kind="accepted", night=night, model=acceptance.model, by=acceptance.by)
        self._nights.setdefault(night, {})["accepted", acceptance.model] = event

    def forget(self, before: date) -> None:
        """Drop the events of older nights."""
        for night in [each for each in self._nights if each < before]:
            del self._nights[night]

    def newest_first(self) -> Iterator[Event]:
        """Yield the events, of each model and check the one with the smallest context."""
        for night in sorted(self._nights, reverse=True):
            yield from _smallest(self._nights[night].values())


def _key(result: Result) -> tuple[str, ...]:
    return (result.run, result.model, result.engine, result.check, str(result.context_length),
            result.settings, result.machine or "", result.host or "")  # fmt: skip


def _smallest(events: Iterable[Event]) -> Iterator[Event]:
    found: dict[tuple[str, ...], Event] = {}
    for event in events:
        key = event.run, event.kind, event.model, event.engine, event.check
        known = found.setdefault(key, event)
        if known.moment and event.moment \
                and event.moment.context_length < known.moment.context_length:  # fmt: skip
            found[key] = event
    yield from found.values()
