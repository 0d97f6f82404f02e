"""What to do: the problems of a run, grouped by cause. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import Struct

from pytest_lmstrix.checks.advice import advice_for
from pytest_lmstrix.core.formatting import count_of, tokens
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import TRAITS, Verdict
from pytest_lmstrix.reports.page.model_rows import ModelRow
from pytest_lmstrix.reports.run_json import RunReport

UNJUDGED = "Tests that ended without a verdict"


class Affected(Struct, frozen=True, kw_only=True):
    """A model with the problem, or a test."""

    name: str
    anchor: str
    """The HTML id of the model's row; empty for a test."""
    where: str
    """Such as `full at 60,000`."""
    detail: str


class Cause(Struct, frozen=True, kw_only=True):
    """Everything with the same cause."""

    title: str
    advice: str
    letters: str
    """The letters of its verdicts in the map."""
    family: str
    affected: tuple[Affected, ...]

    @property
    def count(self) -> str:
        return count_of(len(self.affected), "model" if self.affected[0].anchor else "test")

    @property
    def where(self) -> str:
        """Check and size, if they are the same for all."""
        places = {each.where for each in self.affected}
        return min(places) if len(places) == 1 else ""

    @property
    def example(self) -> str:
        """The words that most have in common, if there is no advice."""
        if self.advice:
            return ""
        return Counter(each.detail for each in self.affected).most_common(1)[0][0]


def problems_of(run: RunReport, rows: Sequence[ModelRow]) -> tuple[Cause, ...]:
    """Return the groups, the one with most models first; what was not judged last."""
    groups: dict[tuple[str, str], list[tuple[ModelRow, Result]]] = {}
    for row in rows:
        for key, result in _causes(run, row).items():
            groups.setdefault(key, []).append((row, result))
    found = [_problem(run, advice, members) for (_, advice), members in groups.items()]
    found.sort(key=lambda each: (each.family == "unclear", -len(each.affected)))
    lost = tuple(_without_verdict(run))
    if lost:
        found.append(Cause(title=UNJUDGED, advice="", letters="!", family="engine", affected=lost))
    return tuple(found)


def _causes(run: RunReport, row: ModelRow) -> dict[tuple[str, str], Result]:
    """Return family and advice -> the failure at the smallest size with them."""
    results = run.results_of(row.report)
    cases = [result for result in results if result.origin == "case"] or results
    causes: dict[tuple[str, str], Result] = {}
    for result in sorted(cases, key=lambda each: each.context_length):
        if result.verdict is not Verdict.OK:
            key = (TRAITS[result.verdict].family, advice_for(result))
            causes.setdefault(key, result)
    return causes


def _problem(run: RunReport, advice: str, members: Sequence[tuple[ModelRow, Result]]) -> Cause:
    verdicts = dict.fromkeys(result.verdict for _, result in members)
    names = ", ".join(verdict.replace("_", " ") for verdict in verdicts)
    return Cause(
        title=names[:1].upper() + names[1:],
        advice=advice,
        letters="".join(TRAITS[verdict].letter for verdict in verdicts),
        family=TRAITS[members[0][1].verdict].family,
        affected=tuple(
            Affected(
                name=row.name,
                anchor=row.anchor,
                where=_place(run, result),
                detail=one_line(result.detail, 300),
            )
            for row, result in members
        ),
    )


def _place(run: RunReport, result: Result) -> str:
    found = "" if result.run == run.run else f", found on {result.at:%Y-%m-%d}"
    return f"{one_line(result.check, 60)} at {tokens(result.context_length)}{found}"


def _without_verdict(run: RunReport) -> Iterator[Affected]:
    for case in run.cases:
        if case.outcome in ("error", "failed") and not case.results:
            raised = re.search(r"^E\s+(.+)", case.reason, re.MULTILINE)
            reason = raised[1] if raised else case.reason
            yield Affected(
                name=one_line(case.node_id), anchor="", where=case.outcome,
                detail=one_line(reason, 300),
            )  # fmt: skip
