"""Hosts and models by night, from the registry alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import NamedTuple

from msgspec import Struct

from pytest_lmstrix.core.types import Acceptance, Origin, Result
from pytest_lmstrix.core.verdicts import TRAITS, Outcome, Verdict
from pytest_lmstrix.registry.history.since import Since, most_relevant
from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.reports.nights.events import Event, Events
from pytest_lmstrix.reports.run_json import representative_of
from pytest_lmstrix.system.addresses import remote_host

MOST_NIGHTS = 60
"""Nights with a run that the page shows, the newest ones."""


class Place(NamedTuple):
    """Where a model was tested."""

    engine: str
    machine: str
    host: str
    """A remote host; empty for the machine itself."""


class _RowKey(NamedTuple):
    model: str
    place: Place
    settings: str


class NightResult(Struct, frozen=True, kw_only=True, gc=False):
    """The fields kept of a result."""

    check: str
    context_length: int
    origin: Origin
    verdict: Verdict
    outcome: Outcome
    engine_version: str | None


class NightCell(Struct, frozen=True, kw_only=True):
    """The result that represents a model in a night."""

    result: NightResult
    changed: bool
    """Whether it works or fails unlike in the last night before with a result about it."""

    @property
    def letter(self) -> str:
        return TRAITS[self.result.verdict].letter

    @property
    def family(self) -> str:
        return TRAITS[self.result.verdict].family


class ModelNights(Struct, frozen=True, kw_only=True):
    """A model at one place, night by night."""

    model: str
    place: Place
    settings: str
    several: bool
    """Whether there are other rows of this model."""
    cells: tuple[NightCell | None, ...]
    """By night, the newest first; `None` if it was not tested."""
    since: Since | None
    verified: int | None
    """The largest verified context, in tokens."""

    @property
    def newest(self) -> NightCell:
        return next(cell for cell in self.cells if cell)


class Tally(Struct, frozen=True, kw_only=True):
    """The models tested at a place in a night."""

    works: int
    tested: int


class PlaceNights(Struct, frozen=True, kw_only=True):
    """A place, night by night."""

    machine: str
    host: str
    engines: tuple[str, ...]
    """The engines, with their newest versions."""
    tallies: tuple[Tally | None, ...]


class Board(Struct, frozen=True, kw_only=True):
    """Everything that the page shows."""

    nights: tuple[date, ...]
    """The dates, UTC, of the first results of runs; the newest first."""
    places: tuple[PlaceNights, ...]
    models: tuple[ModelNights, ...]
    """Broken ones first, then other failing ones."""
    events: tuple[Event, ...]
    """The newest first."""
    breaks: tuple[Since, ...]
    """Checks of these models that worked before and fail, the newest break first."""


_Night = dict[_RowKey, dict[tuple[str, int, Origin], NightResult]]


def board_of(registry: Registry, *, most_nights: int = MOST_NIGHTS) -> Board:
    """Return the newest nights of the registry.

    Raises:
        RegistryError: The registry cannot be read.
    """
    nights, events = _read(registry, most_nights)
    dates = tuple(sorted(nights, reverse=True))
    rows: dict[_RowKey, list[NightResult | None]] = {}
    for place, night in enumerate(dates):
        for key, results in nights[night].items():
            cells = rows.setdefault(key, [None] * len(dates))
            cells[place] = representative_of(results.values())
    models = list(_models(registry, rows))
    shown: dict[str, list[_RowKey]] = {}
    for key in rows:
        shown.setdefault(key.model, []).append(key)
    breaks = [since for keys in shown.values() for since in _breaks(registry, keys)]
    return Board(
        nights=dates,
        places=tuple(_places(rows, len(dates))),
        models=tuple(sorted(models, key=_rank)),
        events=tuple(events.newest_first()),
        breaks=tuple(sorted(breaks, key=lambda each: (each.began.at, each.model), reverse=True)),
    )


def _read(registry: Registry, most_nights: int) -> tuple[dict[date, _Night], Events]:
    nights: dict[date, _Night] = {}
    started: dict[str, date] = {}
    events = Events()
    for line in registry.lines():
        if isinstance(line, Acceptance):
            events.accept(line)
            continue
        if line.imported:
            continue
        night = started.setdefault(line.run, line.at.date())
        events.add(line, night)
        if len(nights) == most_nights and night not in nights and night < min(nights):
            continue
        _add(nights.setdefault(night, {}), line)
        if len(nights) > most_nights:
            del nights[min(nights)]
            events.forget(min(nights))
    return nights, events


def _add(night: _Night, line: Result) -> None:
    place = Place(line.engine, line.machine or "", remote_host(line.host) or "")
    results = night.setdefault(_RowKey(line.model, place, line.settings), {})
    results[line.check, line.context_length, line.origin] = NightResult(
        check=line.check,
        context_length=line.context_length,
        origin=line.origin,
        verdict=line.verdict,
        outcome=line.outcome,
        engine_version=line.engine_version,
    )


def _models(
    registry: Registry, rows: dict[_RowKey, list[NightResult | None]]
) -> Iterator[ModelNights]:
    count: dict[str, int] = {}
    for key in rows:
        count[key.model] = count.get(key.model, 0) + 1
    for key, results in rows.items():
        several = count[key.model] > 1
        found = [each for each in registry.since(key.model) if _is_of(each, key)]
        status = registry.status(key.model, engine=key.place.engine, settings=key.settings)
        yield ModelNights(
            model=key.model,
            place=key.place,
            settings=key.settings,
            several=several,
            cells=tuple(_cells(results)),
            since=most_relevant(found, key.place.machine or None),
            verified=status.verified_context if status and not several else None,
        )


def _is_of(since: Since, key: _RowKey) -> bool:
    place = Place(since.engine, since.machine or "", since.host or "")
    return (place, since.settings) == (key.place, key.settings)


def _cells(results: Sequence[NightResult | None]) -> Iterator[NightCell | None]:
    for number, result in enumerate(results):
        if result is None:
            yield None
            continue
        now = _works(result)
        earlier = (_works(each) for each in results[number + 1 :] if each)
        before = next((works for works in earlier if works is not None), None)
        changed = None not in (now, before) and now is not before
        yield NightCell(result=result, changed=changed)


def _works(result: NightResult) -> bool | None:
    """Return whether the model works; `None` if the result is not about the model."""
    if result.verdict.evidence in ("none", "unclear"):
        return None
    return result.verdict is Verdict.OK


def _places(rows: dict[_RowKey, list[NightResult | None]], nights: int) -> Iterator[PlaceNights]:
    """Yield the places, those with the most models first."""
    found: dict[tuple[str, str], list[tuple[_RowKey, list[NightResult | None]]]] = {}
    for key, results in rows.items():
        found.setdefault((key.place.machine, key.place.host), []).append((key, results))
    for (machine, host), group in sorted(found.items(), key=lambda item: -len(item[1])):
        versions: dict[str, str] = {}
        for key, results in group:
            for result in results:
                if result is not None and result.engine_version:
                    versions.setdefault(key.place.engine, result.engine_version)
                    break
        engines = dict.fromkeys(key.place.engine for key, _ in group)
        yield PlaceNights(
            machine=machine,
            host=host,
            engines=tuple(" ".join(filter(None, (each, versions.get(each)))) for each in engines),
            tallies=tuple(_tally(group, night) for night in range(nights)),
        )


def _tally(group: Iterable[tuple[_RowKey, list[NightResult | None]]], night: int) -> Tally | None:
    tested = [result for _, results in group if (result := results[night])]
    works = sum(result.verdict is Verdict.OK for result in tested)
    return Tally(works=works, tested=len(tested)) if tested else None


def _breaks(registry: Registry, keys: Sequence[_RowKey]) -> Iterator[Since]:
    """Yield the breaks of the newest weights of a model at the places that are shown."""
    known = registry.since(keys[0].model)
    for since in known:
        newest = next(each for each in known if _setup(each) == _setup(since))
        if since.state == "broken" and since.fingerprint == newest.fingerprint \
                and any(_is_of(since, key) for key in keys):  # fmt: skip
            yield since


def _setup(since: Since) -> tuple[object, ...]:
    return since.engine, since.machine, since.host, since.settings


def _rank(row: ModelNights) -> tuple[object, ...]:
    open_break = row.since is not None and row.since.state == "broken" and not row.since.accepted
    return not open_break, row.newest.result.verdict is Verdict.OK, row.model.lower(), row.place
