"""The headline of the reports: how many models work, on what, when. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import Struct

from pytest_lmstrix.core.formatting import count_of, duration
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.reports.overview.standing import (
    Standing,
    counted_models,
    standing,
    without_embedding,
)
from pytest_lmstrix.reports.run_json import ModelReport, RunReport
from pytest_lmstrix.system.addresses import remote_host

_MOST_NAMES = 6
"""Longest list of engines or hosts."""
_ORDER = {"date": "{1}", "duration": "{1}", "not tested in this run": "{1} {0}"}
"""Fact -> its text in a line, if it is not name and value."""
_WORDS: dict[Standing, tuple[str, str, str]] = {
    "declared": ("works at its declared context", "work at their declared context", ""),
    "as_tested": ("works as far as tested", "work as far as tested", "as far as tested"),
    "below": ("works below its declared context", "work below their declared context", "below it"),
    "not_at_all": ("does not work", "do not work", "not at all"),
    "unknown": ("has no verdict", "have no verdict", "without a verdict"),
}
"""Standing, best first -> its words for one model, for several, and after another standing."""


class Headline(Struct, frozen=True, kw_only=True):
    """The first lines of each report, as plain text."""

    sentence: str
    """`33 of 55 work at their declared context, 14 below it, 8 not at all`."""
    tested: str
    """`12 models, 30 tests: 28 passed, 2 failed`."""
    facts: tuple[tuple[str, str], ...]
    """Name and value: machine, engines, hosts, date, duration, selection, those that apply."""

    @property
    def setting(self) -> str:
        """The facts in one line: `machine 0123456789ab; engine lmstudio 0.4.19; ...`."""
        return "; ".join(_ORDER.get(name, "{0} {1}").format(name, value)
                         for name, value in self.facts)  # fmt: skip


def headline(run: RunReport) -> Headline:
    """Return the headline of `run`, which is about its `counted_models`."""
    counted = counted_models(run)
    return Headline(
        sentence=standings_sentence(standing(run, model) for model in without_embedding(counted)),
        tested=_tested(run),
        facts=tuple(_facts(run, counted)),
    )


def standings_sentence(standings: Iterable[Standing]) -> str:
    """Return `33 of 55 work at their declared context, 14 below it, 8 not at all`."""
    counts: Counter[Standing] = Counter(standings)
    total = counts.total()
    if not total:
        return "No model has been tested"
    first, *others = (name for name in _WORDS if counts[name])
    one, several, _ = _WORDS[first]
    words = one if counts[first] == 1 else several
    if total == 1:
        return f"The model {words}"
    share = f"{counts[first]:,} of {total:,}" if others else f"All {total:,}"
    after = {name: _WORDS[name][2] for name in others}
    if "below" in after and first != "declared":
        after["below"] = "below their declared context"
    return ", ".join([f"{share} {words}", *(f"{counts[n]:,} {after[n]}" for n in others)])


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
