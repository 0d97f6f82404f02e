"""The causes of problems as groups of report.html. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

from pytest_lmstrix.core.formatting import count_of
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.verdicts import TRAITS
from pytest_lmstrix.registry.history.since import since_text
from pytest_lmstrix.reports.overview.problems import Affected, Cause, causes
from pytest_lmstrix.reports.run_json import RunReport


class AffectedLine(Struct, frozen=True, kw_only=True):
    """A model or a test, cleaned."""

    name: str
    anchor: str
    """The HTML id of the model's row; empty for a test."""
    where: str
    """Such as `full at 60,000, found on 2026-11-02`; empty if it is that of the group."""
    since: str


class CauseGroup(Struct, frozen=True, kw_only=True):
    """A cause, its advice and everything that has it."""

    title: str
    count: str
    where: str
    """Check and size, if they are the same for all."""
    advice: str
    example: str
    """The words that most have in common, if there is no advice."""
    letters: str
    """The letters of its verdicts in the map."""
    family: str
    affected: tuple[AffectedLine, ...]


def cause_groups(run: RunReport, anchors: Mapping[str, str]) -> tuple[CauseGroup, ...]:
    """Return the causes of the problems of `run`; `anchors` has the HTML ids of models."""
    return tuple(_group(run, cause, anchors) for cause in causes(run))


def _group(run: RunReport, cause: Cause, anchors: Mapping[str, str]) -> CauseGroup:
    places = {_place(each) for each in cause.affected}
    common = min(places) if len(places) == 1 else ""
    results = [each.result for each in cause.affected if each.result is not None]
    letters = dict.fromkeys(TRAITS[result.verdict].letter for result in results)
    details = Counter(each.detail for each in cause.affected)
    return CauseGroup(
        title=cause.title[:1].upper() + cause.title[1:],
        count=count_of(len(cause.affected), "test" if cause.family is None else "model"),
        where=common,
        advice=cause.advice,
        example="" if cause.advice else details.most_common(1)[0][0],
        letters="".join(letters) or "!",
        family=cause.family or "engine",
        affected=tuple(
            AffectedLine(
                name=one_line(each.name),
                anchor=anchors.get(each.name, "") if each.result is not None else "",
                where="" if common else _place(each),
                since=one_line(since_text(each.since, today=run.finished)) if each.since else "",
            )
            for each in cause.affected
        ),
    )


def _place(each: Affected) -> str:
    found = f"found on {each.earlier}" if each.earlier else ""
    return one_line(", ".join(filter(None, (each.where, found))))
