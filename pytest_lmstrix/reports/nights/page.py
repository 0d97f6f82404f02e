"""reports/index.html: the page of many nights, one file without network. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from importlib.resources import files
from itertools import groupby

from markupsafe import Markup
from msgspec import Struct

from pytest_lmstrix.core.formatting import count_of, tokens
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.verdicts import TRAITS, Verdict
from pytest_lmstrix.registry.history.since import Since, day, short_text, since_text
from pytest_lmstrix.reports.files import NIGHTS_MARK
from pytest_lmstrix.reports.nights.board import Board, ModelNights, NightCell, PlaceNights, Tally
from pytest_lmstrix.reports.nights.events import Event
from pytest_lmstrix.reports.templates import templates

MOST_GROUPS = 60
"""Groups of events that the page lists, the newest ones."""
MOST_NAMED = 40
"""Models named in one group."""
_VERBS = {
    "broke": ("broke", "broke"),
    "works_again": ("works again", "work again"),
    "accepted": ("was accepted as it is", "were accepted as they are"),
}
"""Kind of event -> its words for one model, and for several."""


class EventGroup(Struct, frozen=True, kw_only=True):
    """Events of one night with the same cause."""

    kind: str
    verb: str
    """`broke`, `work again`."""
    cause: str
    """`lmstudio 0.4.19, 0.4.18 before: guardrail refused`."""
    names: tuple[str, ...]
    more: int


class NightOfEvents(Struct, frozen=True, kw_only=True):
    """A night and what changed in it."""

    night: date
    groups: tuple[EventGroup, ...]


class BreakGroup(Struct, frozen=True, kw_only=True):
    """Models with the same sentence."""

    text: str
    names: tuple[str, ...]
    accepted: bool

    @property
    def count(self) -> int:
        return len(self.names)


def page(board: Board, *, made: datetime, links: Sequence[str] = ()) -> str:
    """Return the page; `links` are names of files beside it."""
    environment = templates("nights")
    environment.filters.update(line=one_line, tokens=tokens, count_of=count_of)
    here = files("pytest_lmstrix.reports") / "nights"
    breaks = break_groups(board.breaks, today=made.date())
    return environment.get_template("nights.html.jinja").render(
        css=Markup(here.joinpath("nights.css").read_text(encoding="utf-8")),
        js=Markup(here.joinpath("nights.js").read_text(encoding="utf-8")),
        mark=Markup(NIGHTS_MARK),
        board=board,
        made=made,
        links=links,
        sentence=nights_sentence(board),
        months=_months(board.nights),
        broken=[group for group in breaks if not group.accepted],
        accepted=[group for group in breaks if group.accepted],
        nights=night_events(board.events)[:MOST_GROUPS],
        legend=_legend(board.models),
        place_name=place_name,
        share=_share,
        cell_text=cell_text,
        row_since=row_since,
        row_place=row_place,
    )


def nights_sentence(board: Board) -> str:
    """Return `28 Nov 2026: 50 of 55 tested models work, 3 broke, 1 works again`."""
    if not board.nights:
        return "No night yet: the registry has no result"
    newest = [row.cells[0] for row in board.models if row.cells[0]]
    works = sum(cell.result.verdict is Verdict.OK for cell in newest)
    parts = [f"{works:,} of {count_of(len(newest), 'tested model')}"]
    parts[0] += " works" if works == 1 else " work"
    counts = Counter(
        (event.kind, event.model) for event in board.events if event.night == board.nights[0]
    )
    for kind, verbs in (("broke", ("broke", "broke")), ("works_again", ("works", "work"))):
        models = sum(1 for name, _ in counts if name == kind)
        if models:
            again = " again" if kind == "works_again" else ""
            parts.append(f"{models:,} {verbs[models > 1]}{again}")
    return f"{_date(board.nights[0])}: {', '.join(parts)}"


def break_groups(breaks: Iterable[Since], *, today: date) -> list[BreakGroup]:
    """Return the breaks, those with the same sentence together; the order is kept."""
    found: dict[tuple[str, bool], dict[str, None]] = {}
    for since in breaks:
        verdict = verdict_words(since.newest.verdict)
        text = f"{since.check}, {verdict}. {since_text(since, today=today)}"
        found.setdefault((text, since.accepted is not None), {})[since.model] = None
    return [
        BreakGroup(text=one_line(text, 500), names=tuple(map(one_line, names)), accepted=accepted)
        for (text, accepted), names in found.items()
    ]


def night_events(events: Iterable[Event]) -> list[NightOfEvents]:
    """Return the events by night and cause; of one cause the models are listed."""
    return [
        NightOfEvents(night=night, groups=tuple(_groups(of_night)))
        for night, of_night in groupby(events, key=lambda event: event.night)
    ]


def _groups(events: Iterable[Event]) -> Iterator[EventGroup]:
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for event in events:
        where = ""
        if event.moment is not None:
            where = f"{event.check} at {tokens(event.moment.context_length)}"
        of_cause = found.setdefault((event.kind, _cause(event)), {})
        of_cause.setdefault(one_line(event.model), set()).add(where)
    order = ("broke", "works_again", "accepted")
    for (kind, cause), models in sorted(
        found.items(), key=lambda item: (order.index(item[0][0]), -len(item[1]))
    ):
        names = [
            one_line(", ".join(filter(None, (name, *sorted(where)))), 300)
            for name, where in models.items()
        ]
        one, several = _VERBS[kind]
        yield EventGroup(
            kind=kind,
            verb=one if len(names) == 1 else several,
            cause=one_line(cause, 300),
            names=tuple(names[:MOST_NAMED]),
            more=max(0, len(names) - MOST_NAMED),
        )


def _cause(event: Event) -> str:
    """Return `lmstudio 0.4.19, 0.4.18 before: guardrail refused`."""
    if event.moment is None:
        return f"by {event.by}"
    text = " ".join(filter(None, (event.engine, event.moment.engine_version)))
    before = event.before.engine_version if event.before else None
    if before and before != event.moment.engine_version:
        text += f", {before} before"
    verdict = event.moment.verdict if event.kind == "broke" else None
    return f"{text}: {verdict_words(verdict)}" if verdict else text


def verdict_words(verdict: Verdict) -> str:
    """Return a verdict in words: `guardrail refused`."""
    return verdict.value.replace("_", " ")


def _months(nights: Sequence[date]) -> list[tuple[str, int]]:
    """Return the months of the columns, and how many columns each has."""
    found: list[tuple[str, int]] = []
    for (year, month), group in groupby(nights, key=lambda night: (night.year, night.month)):
        found.append((f"{year}-{month:02}", len(list(group))))
    return found


def _legend(models: Iterable[ModelNights]) -> list[tuple[str, str, str]]:
    """Return letter, family and meaning of the verdicts in use."""
    used = {cell.result.verdict for row in models for cell in row.cells if cell}
    return [(TRAITS[each].letter, TRAITS[each].family, verdict_words(each)) for each in TRAITS
            if each in used]  # fmt: skip


def place_name(place: PlaceNights) -> str:
    """Return the remote host, else the machine."""
    return one_line(place.host or f"machine {place.machine or 'unknown'}")


def _share(tally: Tally) -> str:
    """Return the class of a cell of the table of hosts."""
    if tally.works == tally.tested:
        return "ok"
    return "some" if tally.works else "room"


def cell_text(cell: NightCell, night: date) -> str:
    """Return the tooltip of a cell: `2026-11-28: crashed, full at 30,000, 0.4.19`."""
    result = cell.result
    version = f", {result.engine_version}" if result.engine_version else ""
    size = tokens(result.context_length)
    return one_line(f"{night}: {verdict_words(result.verdict)}, {result.check} at {size}{version}")


def row_since(row: ModelNights) -> str:
    return one_line(short_text(row.since), 60) if row.since else ""


def row_place(row: ModelNights) -> str:
    """Return what distinguishes several rows of a model."""
    if not row.several:
        return ""
    place = row.place
    parts = (place.engine, place.host or place.machine, row.settings)
    return one_line(", ".join(filter(None, parts)), 100)


def _date(night: date) -> str:
    return f"{day(datetime.combine(night, datetime.min.time()), date.min)}"
