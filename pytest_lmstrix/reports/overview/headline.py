"""The headline of the reports: how many models work, on what, when. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import Struct

from pytest_lmstrix.core.formatting import count_of, duration
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.registry.history.since import remote_host
from pytest_lmstrix.reports.overview.standing import Standing, standing
from pytest_lmstrix.reports.run_json import ModelReport, RunReport

_MOST_NAMES = 6
"""Longest list of engines or hosts."""
_OTHERS: dict[Standing, str] = {
    "as_tested": "as far as tested",
    "below": "below it",
    "not_at_all": "not at all",
    "unknown": "without a verdict",
}


class Headline(Struct, frozen=True, kw_only=True):
    """The first lines of each report, as plain text."""

    sentence: str
    """`33 of 55 work at their declared context, 14 below it, 8 not at all`."""
    tested: str
    """`12 models, 30 tests: 28 passed, 2 failed`."""
    facts: tuple[tuple[str, str], ...]
    """Name and value: machine, engines, hosts, date, duration, selection, those that apply."""


def headline(run: RunReport) -> Headline:
    """Return the headline of `run`.

    It is about all models with results, or those tested if the user selected some.
    """
    counted = [model for model in run.models if run.results_of(model)]
    if run.asked:
        counted = list(run.tested)
    return Headline(
        sentence=standings_sentence(standing(run, model) for model in counted),
        tested=_tested(run),
        facts=tuple(_facts(run, counted)),
    )


def standings_sentence(standings: Iterable[Standing]) -> str:
    """Return `33 of 55 work at their declared context, 14 below it, 8 not at all`."""
    counts: Counter[Standing] = Counter(standings)
    total = counts.total()
    if not total:
        return "No model has been tested"
    if total == 1:
        return _of_one(next(iter(counts)))
    parts = [f"{counts['declared']:,} of {total:,} work at their declared context"]
    if counts["declared"] == total:
        parts = [f"All {total:,} work at their declared context"]
    parts += [f"{counts[name]:,} {words}" for name, words in _OTHERS.items() if counts[name]]
    return ", ".join(parts)


def _of_one(only: Standing) -> str:
    return {
        "declared": "The model works at its declared context",
        "as_tested": "The model works as far as tested",
        "below": "The model works below its declared context",
        "not_at_all": "The model does not work",
        "unknown": "The model has no verdict",
    }[only]


def _tested(run: RunReport) -> str:
    tests = len({case.node_id for case in run.cases})  # a failed teardown is another case
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in run.counts.items())
    models = count_of(len(run.tested), "model")
    return f"{models}, {count_of(tests, 'test')}: {counts or 'nothing was tested'}"


def _facts(run: RunReport, counted: Iterable[ModelReport]) -> Iterator[tuple[str, str]]:
    results = [result for model in counted for result in run.results_of(model)]
    yield "machine", one_line(run.machine)
    if engines := _names(map(_engine, results)):
        yield "engines" if "," in engines else "engine", engines
    if hosts := _names(filter(None, (remote_host(result.host) for result in results))):
        yield "hosts" if "," in hosts else "host", hosts
    yield "date", f"{run.started:%Y-%m-%d %H:%M} UTC"
    yield "duration", duration((run.finished - run.started).total_seconds())
    if run.asked:
        yield "selection", one_line(" ".join(run.asked), 500)
    untested = len(run.models) - len(run.tested)
    if untested:
        yield "not tested in this run", count_of(untested, "model")


def _engine(result: Result) -> str:
    return " ".join(filter(None, (result.engine, result.engine_version)))


def _names(names: Iterable[str]) -> str:
    """Return the distinct names, the most frequent first."""
    known = [one_line(name, 100) for name, _ in Counter(names).most_common()]
    more = f", {len(known) - _MOST_NAMES:,} more" if len(known) > _MOST_NAMES else ""
    return ", ".join(known[:_MOST_NAMES]) + more
