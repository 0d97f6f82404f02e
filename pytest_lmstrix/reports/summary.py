"""reports/summary.md: the run as Markdown, also used as the job summary on GitHub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

from pytest_lmstrix.checks.advice import advice_for
from pytest_lmstrix.core.formatting import count_of, duration, rate, seconds, tokens, verdict_text
from pytest_lmstrix.core.sanitize import escape_markdown
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.history.since import most_relevant, since_text
from pytest_lmstrix.registry.history.updates import update_text
from pytest_lmstrix.reports.changes import MEASURES, basis, format_measure, where
from pytest_lmstrix.reports.run_json import CaseReport, ModelReport, RunReport, representative_of

SUMMARY_MARK = "<!-- pytest-lmstrix -->"
"""First line of a summary.md that the plugin may replace."""
SUMMARY_HEADING = "## Local LLM models"
MOST_PROBLEMS = 30
_MOST_CHANGES = 40
MOST_MODELS = 40
"""With more models than this, those without a problem are collapsed."""
_HEADINGS = ("model", "declared", "verified", "first bad", "verdict", "load", "TTFT", "tokens/s")


def summary(run: RunReport, links: Mapping[str, str]) -> str:
    """Return the page; `links` maps names to URLs or relative paths."""
    blocks = [
        SUMMARY_HEADING,
        _headline(run),
        escape_markdown(". ".join(map(update_text, run.updates))),
        *_changes(run),
        *_problems(run),
        *_models(run),
        " · ".join(f"[{name}]({_encode_address(address)})" for name, address in links.items()),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def nothing_new(known: int) -> str:
    """Return the page of a run that tested nothing because `known` cases have results."""
    return (
        f"{SUMMARY_HEADING}\n\n**Nothing new to test**: {count_of(known, 'case')} known already;"
        " `--lmstrix-all` runs them too.\n"
    )


def _encode_address(address: str) -> str:
    # Blanks or parentheses in a path would end the link.
    return address if "://" in address else quote(address)


def _headline(run: RunReport) -> str:
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in run.counts.items())
    took = duration((run.finished - run.started).total_seconds())
    tests = len({case.node_id for case in run.cases})  # a failed teardown is another case
    tested = f"{count_of(len(run.tested), 'model')}, {count_of(tests, 'test')}"
    return f"**{tested}: {counts or 'nothing was tested'}** in {took}{_selection(run)}"


def _selection(run: RunReport) -> str:
    """Return the selection of the run and the number of models left out, if any."""
    untested = len(run.models) - len(run.tested)
    selection = f" ({escape_markdown(' '.join(run.asked))})" if run.asked else ""
    others = f"; {count_of(untested, 'model')} not tested in this run" if untested else ""
    return selection + others


def _changes(run: RunReport) -> Iterator[str]:
    if not run.changes:
        return
    yield "### What changed"
    if run.regressions:
        gate = ", which fail this run" if run.fail_on_regression is not None else ""
        yield f"**{count_of(len(run.regressions), 'regression')}**{gate}."
    yield _table(
        ("", "model", "where", "what", "before", "now", "compared with"),
        (
            (
                change.kind.replace("_", " "),
                escape_markdown(change.model),
                escape_markdown(where(change)),
                MEASURES[change.measure],
                format_measure(change, change.before),
                format_measure(change, change.after),
                escape_markdown(basis(change) or "the run before"),
            )
            for change in run.changes[:_MOST_CHANGES]
        ),
    )
    yield _more(len(run.changes) - _MOST_CHANGES, "change")


def _problems(run: RunReport) -> Iterator[str]:
    """Yield a list: each model with a problem, cause and advice; each test without a verdict."""
    bad = [representative_of(run.results_of(model)) for model in run.models if _has_problem(model)]
    lines = [
        f"- **{escape_markdown(result.model)}**, {escape_markdown(result.check)} at"
        f" {tokens(result.context_length)}: {_reason(result)}"
        f"{_earlier(run, result)}{_since(run, result.model)}"
        for result in bad
    ]
    lines += [
        f"- **{escape_markdown(case.node_id)}**: {case.outcome} - {escape_markdown(_gist(case))}"
        for case in run.cases
        if case.outcome in ("error", "failed") and not case.results
    ]
    if not lines:
        return
    yield "### What did not work"
    yield "\n".join(lines[:MOST_PROBLEMS])
    yield _more(len(lines) - MOST_PROBLEMS, "problem")


def _earlier(run: RunReport, result: Result) -> str:
    return "" if result.run == run.run else f" (found on {result.at:%Y-%m-%d}, not tested now)"


def _since(run: RunReport, model: str) -> str:
    """Return since when the model is broken, if it worked before."""
    reports = (each for each in run.models if each.id == model)
    found = most_relevant((since for each in reports for since in each.since), run.machine)
    if found is None or found.state != "broken":
        return ""
    return f" **{escape_markdown(since_text(found, today=run.finished), 500)}.**"


def _gist(case: CaseReport) -> str:
    """Return the exception line of a traceback."""
    raised = re.search(r"^E\s+(.+)", case.reason, re.MULTILINE)
    return raised[1] if raised else case.reason


def _reason(result: Result) -> str:
    words = f" - {escape_markdown(result.detail)}" if result.detail else ""
    advice = advice_for(result)
    return f"`{result.verdict}`{words}" + (f" *{advice}*" if advice else "")


def _models(run: RunReport) -> Iterator[str]:
    """Yield the table of models; in a long one, models without a problem are collapsed."""
    if not run.models:
        return
    yield "### Models"
    visible, collapsed = list(run.models), list[ModelReport]()
    if len(run.models) > MOST_MODELS:
        visible = [model for model in run.models if _has_problem(model)]
        collapsed = [model for model in run.models if not _has_problem(model)]
    if visible:
        yield _table(_HEADINGS, (_row(run, model) for model in visible))
    if collapsed:
        yield f"<details><summary>{count_of(len(collapsed), 'model')} without a problem</summary>"
        yield _table(_HEADINGS, (_row(run, model) for model in collapsed))
        yield "</details>"


def _row(run: RunReport, model: ModelReport) -> Sequence[str]:
    results = run.results_of(model)
    result = representative_of(results) if results else None
    check = f" ({model.verified_check})" if model.verified_check == "deep" else ""
    return (
        escape_markdown(model.id),
        tokens(model.context_limit),
        tokens(model.verified_context) + check,
        tokens(model.smallest_bad),
        f"`{verdict_text(result.verdict, results)}`{_earlier(run, result)}"
        if result
        else "not tested",
        seconds(result.load_seconds if result else None),
        seconds(result.ttft_seconds if result else None),
        rate(result.decode_tokens_per_second if result else None),
    )


def _has_problem(model: ModelReport) -> bool:
    return model.verdict not in (None, Verdict.OK)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell for cell in line)} |" for line in lines)


def _more(count: int, thing: str) -> str:
    return f"... and {count_of(count, f'more {thing}')}" if count > 0 else ""
