"""The models of a run as rows of report.html, failures first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from pytest_lmstrix.core.checks import CHECKS, judges_size
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.types import Model, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.plan.plan import Plan
from pytest_lmstrix.registry.history.earlier import History
from pytest_lmstrix.registry.history.since import most_relevant, short_text
from pytest_lmstrix.reports.overview.standing import Standing, failures_first, standing, verifies
from pytest_lmstrix.reports.page.fleet import earlier_results, newest_results
from pytest_lmstrix.reports.page.strips import LAST_RUNS, Axis, state_name
from pytest_lmstrix.reports.run_json import ModelReport, RunReport, representative_of
from pytest_lmstrix.system.addresses import shown_host

STANDING_NAMES: dict[Standing, str] = {
    "declared": "works",
    "as_tested": "works as tested",
    "below": "below declared",
    "not_at_all": "not at all",
    "unknown": "no verdict",
}
"""Standing -> its name in the table and its filter."""
_BADNESS = {"fails": 2, "works": 1, "unclear": 0}


class ModelRow(Struct, frozen=True, kw_only=True):
    """One model of the table; sizes in tokens, text cleaned."""

    anchor: str
    """The HTML id."""
    model: Model
    name: str
    standing: Standing
    own_failed: int
    """The number of users' checks that fail."""
    claims_failed: int
    """The number of declared capabilities that do not hold."""
    changed: bool
    tested: bool
    """Whether this run tested it."""
    engine: str
    """With its version."""
    host: str
    """Where its last result is from; empty without one."""
    recommended: int | None
    declared: int | None
    peak_memory_bytes: int | None
    estimated_memory_bytes: int | None
    prefill: float | None
    decode: float | None
    since: str
    """Begins with a verb: `broken 2026-11-02 (0.4.19)`."""
    sizes: dict[int, Result]
    """Size -> the result that counts there."""
    report: ModelReport
    tags: tuple[str, ...]
    results: tuple[Result, ...]
    """The newest of each check and size, by check and size."""
    runs: tuple[Result, ...]
    """A result that represents each of the last runs, oldest first."""


def model_rows(plan: Plan, run: RunReport, history: History) -> tuple[ModelRow, ...]:
    """Return a row for each model, those that fail first."""
    models = [each.model for each in plan.all_models()]
    places = {model.id: place for place, model in enumerate(models)}
    changed = {change.model for change in run.changes}
    return tuple(
        _row(places[report.id], models[places[report.id]], report, history, run, changed)
        for report in failures_first(run)
        if report.id in places
    )


def axis_of_rows(rows: Sequence[ModelRow]) -> Axis:
    """Return the axis on which every size of every model has its place."""
    sizes = [row.declared or 0 for row in rows]
    sizes += [result.context_length for row in rows for result in row.results]
    return Axis(high=max(sizes, default=0))


def _row(
    place: int,
    model: Model,
    report: ModelReport,
    history: History,
    run: RunReport,
    changed: set[str],
) -> ModelRow:
    now = run.results.get(model.id, [])
    found = [*earlier_results(model, history, run.machine), *now]
    newest = newest_results(found)
    results = [result for sizes in newest.values() for _, result in sorted(sizes.items())]
    sizes = worst_by_size([each for each in results if judges_size(each.check)] or results)
    best = report.verified_context or _largest_verified(sizes)
    last = found[-1] if found else None
    since = most_relevant(report.since, run.machine)
    memory = _largest([each for each in results if each.peak_memory_bytes is not None])
    estimate = _largest([each for each in results if each.estimated_memory_bytes is not None])
    version = (last.engine_version if last else None) or ""
    how_far = standing(run, report)
    return ModelRow(
        anchor=f"m{place}",
        model=model,
        name=one_line(model.id),
        standing=how_far,
        own_failed=sum(
            state_name(result) == "fails" for result in results if result.check not in CHECKS
        ),
        claims_failed=list(report.capability_proofs.values()).count("failed"),
        changed=model.id in changed,
        tested=bool(now),
        engine=one_line(f"{model.engine} {version}"),
        host=one_line(shown_host(last.host)) if last else "",
        recommended=best if how_far not in ("not_at_all", "unknown") else None,
        declared=model.context_limit,
        peak_memory_bytes=memory.peak_memory_bytes if memory else None,
        estimated_memory_bytes=estimate.estimated_memory_bytes if estimate else None,
        prefill=_speed(results, "prefill_tokens_per_second"),
        decode=_speed(results, "decode_tokens_per_second"),
        since=one_line(short_text(since)) if since else "",
        sizes=sizes,
        report=report,
        tags=tuple(one_line(tag, 60) for tag in model.tags),
        results=tuple(results),
        runs=by_run(found),
    )


def worst_by_size(results: Iterable[Result]) -> dict[int, Result]:
    """Return size -> the result that counts there: a failure before a pass, in any check."""
    worst: dict[int, Result] = {}
    for result in sorted(results, key=lambda each: (_BADNESS[state_name(each)], verifies(each))):
        worst[result.context_length] = result
    return dict(sorted(worst.items()))


def by_run(results: Iterable[Result]) -> tuple[Result, ...]:
    """Return a result that represents each of the last runs, oldest first."""
    runs: dict[str, list[Result]] = {}
    for result in results:
        runs.setdefault(result.run, []).append(result)
    return tuple(representative_of(each) for each in list(runs.values())[-LAST_RUNS:])


def _largest_verified(sizes: dict[int, Result]) -> int | None:
    """Return the largest size that works below the first failure."""
    best = None
    for size, result in sizes.items():
        if state_name(result) == "fails":
            break
        best = size if verifies(result) else best
    return best


def _largest(results: Sequence[Result]) -> Result | None:
    """Return the result of the largest size, a pass if there is one."""
    key = lambda each: (each.verdict is Verdict.OK, each.context_length)  # noqa: E731
    return max(results, key=key, default=None)


def _speed(results: Iterable[Result], name: str) -> float | None:
    """Return the rate at the largest size, that of the check `speed` if it has one."""
    measured = [each for each in results if getattr(each, name) is not None]
    best = max(
        measured, key=lambda each: (each.check == "speed", each.context_length), default=None
    )
    return getattr(best, name) if best else None
