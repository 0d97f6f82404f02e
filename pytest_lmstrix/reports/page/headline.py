"""The headline of report.html: how many models work, and with what they were tested. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from pytest_lmstrix.core.formatting import count_of, duration
from pytest_lmstrix.reports.page.model_rows import ModelRow, Standing
from pytest_lmstrix.reports.run_json import RunReport

STANDING_NAMES: dict[Standing, str] = {
    "works": "works",
    "partly": "partly",
    "not": "not at all",
    "unjudged": "not judged",
}
"""Standing -> its name in the table and its filter."""


class Headline(Struct, frozen=True, kw_only=True):
    """The first lines of the page."""

    sentence: str
    counts: tuple[tuple[Standing, int], ...]
    """The states that occur, and their numbers of models."""
    facts: tuple[tuple[str, str], ...]
    """Name and value."""


def headline_of(run: RunReport, rows: Sequence[ModelRow]) -> Headline:
    """Return the headline of `run`, whose models are `rows`."""
    counts = Counter(row.standing for row in rows)
    return Headline(
        sentence=_sentence(rows, counts),
        counts=tuple((state, counts[state]) for state in STANDING_NAMES if counts[state]),
        facts=tuple((name, text) for name, text in _facts(run, rows).items() if text),
    )


def _sentence(rows: Sequence[ModelRow], counts: Counter[Standing]) -> str:
    """Return such as `33 of 55 work at their declared context, 14 below it, 8 not at all`."""
    if not rows:
        return "No model was tested"
    verb, whose = ("works", "its") if len(rows) == 1 else ("work", "their")
    parts = [f"{counts['works']:,} of {len(rows):,} {verb} at {whose} declared context"]
    if below := counts["partly"]:
        untested = sum(row.standing == "partly" and not row.tested_higher for row in rows)
        more = f" ({'' if untested == below else f'{untested:,} '}not tested higher)"
        parts.append(f"{below:,} below it{more if untested else ''}")
    if counts["not"]:
        parts.append(f"{counts['not']:,} not at all")
    if counts["unjudged"]:
        parts.append(f"{counts['unjudged']:,} could not be judged")
    return ", ".join(parts)


def _facts(run: RunReport, rows: Sequence[ModelRow]) -> dict[str, str]:
    tests = len({case.node_id for case in run.cases})
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in run.counts.items())
    gate = " (they fail this run)" if run.fail_on_regression is not None else ""
    return {
        "date": f"{run.started:%Y-%m-%d %H:%M} UTC",
        "took": duration((run.finished - run.started).total_seconds()),
        "tests": f"{tests:,}: {outcomes}" if outcomes else f"{tests:,}",
        "regressions": f"{len(run.regressions):,}{gate}" if run.regressions else "",
        "only": " ".join(run.asked),
        "engines": _often(row.engine for row in rows),
        "hosts": _often(row.host for row in rows),
        "machine": run.machine,
        "versions": ", ".join(f"{name} {version}" for name, version in run.versions.items()),
    }


def _often(names: Iterable[str]) -> str:
    counts = Counter(names)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} ({count_of(count, 'model')})" for name, count in counts.most_common())
