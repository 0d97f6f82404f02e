"""What to do: the problems of a run, grouped by cause and advice. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from pytest_lmstrix.checks.advice import advice_for
from pytest_lmstrix.core.formatting import tokens
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import TRAITS, Family, Verdict
from pytest_lmstrix.registry.history.since import Since
from pytest_lmstrix.reports.overview.standing import counted_models, since_of_model
from pytest_lmstrix.reports.run_json import CaseReport, ModelReport, RunReport, representative_of
from pytest_lmstrix.system.addresses import remote_host

_MOST_DETAIL = 300
"""Longest detail of a result, in characters."""


class Affected(Struct, frozen=True, kw_only=True):
    """A model that has the problem, or a test without a verdict. Its texts may be hostile."""

    name: str
    """Model id, else node id."""
    where: str = ""
    """`full at 60,000 on den`."""
    detail: str = ""
    """The engine's words in one line."""
    earlier: str = ""
    """The date of the result, if this run did not test the model."""
    since: Since | None = None
    """Its break, if it worked before."""
    result: Result | None = None
    """The result with the smallest context that has the problem."""


class Cause(Struct, frozen=True, kw_only=True):
    """One cause, with its advice and everything that has it."""

    title: str
    """The verdicts in plain words, such as `guardrail refused`."""
    family: Family | None
    """`None` for tests that raised instead of reaching a verdict."""
    advice: str
    words: str = ""
    """The words of a host that name the remedy themselves, and are those of all `affected`."""
    affected: tuple[Affected, ...]
    """Models that worked before first."""

    @property
    def broken(self) -> int:
        """The number of models that worked before, which was not accepted."""
        return sum(_is_open(each) for each in self.affected)


def causes(run: RunReport) -> list[Cause]:
    """Return the causes of the problems of `run`, those that broke models first, then by size."""
    found = [*_of_models(run), *_of_tests(run)]
    return sorted(found, key=lambda each: (-each.broken, -len(each.affected)))


def _of_models(run: RunReport) -> Iterator[Cause]:
    groups: dict[tuple[Family, str, str], dict[str, tuple[ModelReport, Result]]] = {}
    for model in counted_models(run):
        for result in _bad_results(run, model):
            advice = advice_for(result)
            words = "" if advice or result.verdict.subject != "host" else _words(result)
            cause = TRAITS[result.verdict].family, advice, words
            groups.setdefault(cause, {}).setdefault(model.id, (model, result))
    for (family, advice, words), found in groups.items():
        verdicts = dict.fromkeys(result.verdict for _, result in found.values())
        affected = [_affected(run, model, result) for model, result in found.values()]
        yield Cause(
            title=", ".join(verdict.replace("_", " ") for verdict in verdicts),
            family=family,
            advice=advice,
            words=words,
            affected=tuple(sorted(affected, key=lambda each: not _is_open(each))),
        )


def _bad_results(run: RunReport, model: ModelReport) -> list[Result]:
    """Return the results that are not `ok`, the representative one first.

    As for the representative one, a size search counts only where there is nothing else, and
    results about the host or without a judgement only if no other is bad.
    """
    results = run.results_of(model)
    if not results:
        return []
    first = representative_of(results)
    if first.verdict is Verdict.OK:
        return []
    judged = [
        each
        for each in sorted(results, key=lambda each: each.context_length)
        if each.verdict is not Verdict.OK
        and each.origin == first.origin
        and (each.outcome in ("skipped", "error")) == (first.outcome in ("skipped", "error"))
    ]
    return [first, *(each for each in judged if each is not first)]


def _affected(run: RunReport, model: ModelReport, result: Result) -> Affected:
    since = since_of_model(run, model)
    return Affected(
        name=model.id,
        where=f"{result.check} at {tokens(result.context_length)}{_on_host(result)}",
        detail=_words(result),
        earlier="" if result.run == run.run else f"{result.at:%Y-%m-%d}",
        since=since if since and since.state == "broken" else None,
        result=result,
    )


def _words(result: Result) -> str:
    return one_line("; ".join(result.detail.splitlines()), _MOST_DETAIL)


def _on_host(result: Result) -> str:
    host = remote_host(result.host)
    return f" on {one_line(host)}" if host else ""


def _of_tests(run: RunReport) -> Iterator[Cause]:
    """Yield tests that raised instead of reaching a verdict, by what they raised."""
    groups: dict[str, list[CaseReport]] = {}
    for case in run.cases:
        if case.outcome in ("error", "failed") and not case.results:
            groups.setdefault(gist(case), []).append(case)
    for text, cases in groups.items():
        outcomes = dict.fromkeys("error" if c.outcome == "error" else "failed test" for c in cases)
        yield Cause(
            title=", ".join(outcomes),
            family=None,
            advice="",
            affected=tuple(Affected(name=case.node_id, detail=text) for case in cases),
        )


def gist(case: CaseReport) -> str:
    """Return the exception line of a traceback."""
    raised = re.search(r"^E\s+(.+)", case.reason, re.MULTILINE)
    return one_line(raised[1] if raised else case.reason, _MOST_DETAIL)


def _is_open(affected: Affected) -> bool:
    since = affected.since
    return since is not None and since.accepted is None
