"""How far each model works, compared with the context that it declares. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from pytest_lmstrix.core.checks import evidence_of, judges_size
from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.history.since import Since, most_relevant
from pytest_lmstrix.registry.known import VERIFYING
from pytest_lmstrix.reports.run_json import ModelReport, RunReport, representative_of

Standing = Literal["not_at_all", "below", "unknown", "as_tested", "declared"]
"""How far a model works:

- `not_at_all`: at no size;
- `below`: at a size, while one up to its declared context fails;
- `unknown`: it has no verdict;
- `as_tested`: at each size that was tested, of which none is its declared context;
- `declared`: at its declared context, or one token below it, as the ladder tests it, in
  `full`, `deep` or `limit`.
"""
STANDINGS: tuple[Standing, ...] = get_args(Standing)
"""Worst first."""


def standing_of(
    results: Iterable[Result],
    *,
    declared: int | None,
    verified: int | None = None,
    smallest_bad: int | None = None,
) -> Standing:
    """Return how far a model with these newest results works; sizes in tokens.

    `verified` and `smallest_bad` are those of its status in the registry. Results of users' own
    checks, of `capability` and those about the host count neither for nor against it.
    """
    judged = [each for each in results if judges_size(each.check) and not each.imported]
    cases = [each for each in judged if each.origin == "case"] or judged
    if any(each.verdict.evidence == "model" for each in cases):
        return "not_at_all"
    good = {each.context_length for each in judged if each.verdict is Verdict.OK}
    bad = {each.context_length for each in cases if each.verdict.evidence in ("bad", "open")}
    good |= {verified} if verified else set()
    bad |= {smallest_bad} if smallest_bad else set()
    if not good:
        return "not_at_all" if bad else "unknown"
    if bad and min(bad) <= (declared or MAX_CONTEXT_LENGTH):
        return "below"
    shown = max((each.context_length for each in judged if verifies(each)), default=0)
    at_declared = declared and max(shown, verified or 0) >= declared - 1
    return "declared" if at_declared else "as_tested"


def verifies(result: Result) -> bool:
    """Whether `result` verifies its size; `fast` is only a quick look."""
    return result.verdict is Verdict.OK and evidence_of(result.check) in VERIFYING


def standing(run: RunReport, model: ModelReport) -> Standing:
    """Return how far `model` works by this run, else by earlier ones."""
    return standing_of(
        run.results_of(model),
        declared=model.context_limit,
        verified=model.verified_context,
        smallest_bad=model.smallest_bad,
    )


def since_of_model(run: RunReport, model: ModelReport) -> Since | None:
    """Return the line of time to show of `model`: of the machine of the run, breaks first."""
    return most_relevant(model.since, run.machine)


def is_broken(run: RunReport, model: ModelReport) -> bool:
    """Return whether `model` worked before and does not now, which was not accepted."""
    since = since_of_model(run, model)
    return since is not None and since.state == "broken" and since.accepted is None


def has_problem(model: ModelReport) -> bool:
    """Return whether the representative result of `model` is not `ok`."""
    return model.verdict not in (None, Verdict.OK)


def counted_models(run: RunReport) -> tuple[ModelReport, ...]:
    """Return the models that the headline and the causes are about.

    Those are all with results, or those tested if the user selected some by name.
    """
    if any(each.startswith("-k ") or "::" in each for each in run.asked):
        return run.tested
    return tuple(model for model in run.models if run.results_of(model))


def without_embedding(models: tuple[ModelReport, ...]) -> tuple[ModelReport, ...]:
    """Return `models` but for embedding models, whose sizes are not tested, if any is left."""
    return tuple(model for model in models if model.type != "embedding") or models


def failures_first(run: RunReport) -> list[ModelReport]:
    """Return the models of `run`: failures first, of those the ones that worked before first.

    Models without a result are last; otherwise the order is that of the manifest.
    """

    def rank(model: ModelReport) -> tuple[bool, bool, bool, int]:
        place = STANDINGS.index(standing(run, model))
        return model.verdict is None, not has_problem(model), not is_broken(run, model), place

    return sorted(run.models, key=rank)


def representative(run: RunReport, model: ModelReport) -> Result | None:
    """Return the result that represents `model`, of this run or an earlier one."""
    results = run.results_of(model)
    return representative_of(results) if results else None
