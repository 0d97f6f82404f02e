"""reports/summary.md: the run as Markdown, also used as the job summary on GitHub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

from pytest_lmstrix.core.formatting import NOTHING, count_of, rate, seconds, tokens, verdict_text
from pytest_lmstrix.core.sanitize import escape_markdown
from pytest_lmstrix.core.table import TableCell, without_alike
from pytest_lmstrix.core.types import PROOFS, Result
from pytest_lmstrix.registry.history.since import since_text
from pytest_lmstrix.registry.history.updates import update_text
from pytest_lmstrix.reports.changes import MEASURES, basis, format_measure, where
from pytest_lmstrix.reports.overview.broken import break_text
from pytest_lmstrix.reports.overview.headline import headline
from pytest_lmstrix.reports.overview.notes import explained_notes
from pytest_lmstrix.reports.overview.problems import Affected, causes
from pytest_lmstrix.reports.overview.standing import failures_first, has_problem
from pytest_lmstrix.reports.overview.variants import VARIANT_HEADINGS, variant_cells
from pytest_lmstrix.reports.run_json import ModelReport, RunReport, representative_of
from pytest_lmstrix.system.addresses import shown_host

SUMMARY_MARK = "<!-- pytest-lmstrix -->"
"""First line of a summary.md that the plugin may replace."""
SUMMARY_HEADING = "## Local LLM models"
MOST_CAUSES = 12
MOST_AFFECTED = 20
"""Models listed under a cause."""
_MOST_NOTES = 20
_MOST_CHANGES = 40
MOST_MODELS = 40
"""With more models than this, those without a problem are collapsed."""
_HEADINGS = (
    "model",
    "host",
    "declared",
    "verified",
    "first bad",
    "verdict",
    "load",
    "TTFT",
    "tokens/s",
)


def summary(run: RunReport, links: Mapping[str, str]) -> str:
    """Return the page; `links` maps names to URLs or relative paths."""
    blocks = [
        SUMMARY_HEADING,
        *_headline(run),
        escape_markdown(". ".join(map(update_text, run.updates))),
        *_changes(run),
        *_problems(run),
        *_models(run),
        *_capabilities(run),
        *_variants(run),
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


def _headline(run: RunReport) -> Iterator[str]:
    found = headline(run)
    yield f"**{escape_markdown(found.sentence, 500)}**"
    yield f"{escape_markdown(found.tested, 500)}; {escape_markdown(found.setting, 1_000)}"


def _changes(run: RunReport) -> Iterator[str]:
    if not run.changes:
        return
    yield "### What changed"
    if run.regressions:
        gate = ", which fail this run" if run.fail_on_regression is not None else ""
        yield f"**{count_of(len(run.regressions), 'regression')}**{gate}."
    yield _table(
        ("", "model", "where", "what", "before", "now", "since when, compared with what"),
        (
            (
                change.kind.replace("_", " "),
                escape_markdown(change.model),
                escape_markdown(where(change)),
                MEASURES[change.measure],
                format_measure(change, change.before),
                format_measure(change, change.after),
                escape_markdown(break_text(run, change) or basis(change) or "the run before", 500),
            )
            for change in run.changes[:_MOST_CHANGES]
        ),
    )
    yield _more(len(run.changes) - _MOST_CHANGES, "change")


def _problems(run: RunReport) -> Iterator[str]:
    """Yield each cause of problems with its advice, and the models or tests that have it."""
    found = causes(run)
    if not found:
        return
    yield "### What to do"
    for cause in found[:MOST_CAUSES]:
        thing = "test" if cause.family is None else "model"
        count = count_of(len(cause.affected), thing)
        advice = f" *{cause.advice}*" if cause.advice else ""
        yield f"**{escape_markdown(cause.title)}** ({count}){advice}"
        yield "\n".join(_affected(run, each) for each in cause.affected[:MOST_AFFECTED])
        yield _more(len(cause.affected) - MOST_AFFECTED, thing)
    yield _more(len(found) - MOST_CAUSES, "cause")


def _affected(run: RunReport, each: Affected) -> str:
    place = f", {escape_markdown(each.where)}" if each.where else ""
    verdict = f"`{each.result.verdict}`" if each.result else ""
    words = " - ".join(filter(None, (verdict, escape_markdown(each.detail, 500))))
    earlier = f" (found on {each.earlier}, not tested now)" if each.earlier else ""
    since = since_text(each.since, today=run.finished) if each.since else ""
    broken = f" **{escape_markdown(since, 500)}.**" if since else ""
    return f"- **{escape_markdown(each.name)}**{place}: {words}{earlier}{broken}"


def _earlier(run: RunReport, result: Result) -> str:
    return "" if result.run == run.run else f" (found on {result.at:%Y-%m-%d}, not tested now)"


def _models(run: RunReport) -> Iterator[str]:
    """Yield the table of models; in a long one, models without a problem are collapsed."""
    if not run.models:
        return
    yield "### Models"
    visible, collapsed = failures_first(run), list[ModelReport]()
    if len(visible) > MOST_MODELS:
        collapsed = [model for model in visible if not has_problem(model)]
        visible = [model for model in visible if has_problem(model)]
    rows = [_row(run, model) for model in (*visible, *collapsed)]
    headings, cells = without_alike("host", _HEADINGS, rows)
    if visible:
        yield _table(headings, cells[: len(visible)])
    if collapsed:
        yield f"<details><summary>{count_of(len(collapsed), 'model')} without a problem</summary>"
        yield _table(headings, cells[len(visible) :])
        yield "</details>"
    notes = [f"- {escape_markdown(note, 500)}" for note in explained_notes(run)]
    if notes:
        yield "\n".join(notes[:_MOST_NOTES])
        yield _more(len(notes) - _MOST_NOTES, "note")


def _capabilities(run: RunReport) -> Iterator[str]:
    """Yield what is declared and proven of each model of which `capability` found something."""
    judged = [model for model in run.models if model.capability_proofs]
    if not judged:
        return
    yield "### Capabilities"
    yield _table(("model", "declared", *PROOFS), map(_proofs, judged[:MOST_MODELS]))
    yield _more(len(judged) - MOST_MODELS, "model")


def _proofs(model: ModelReport) -> Sequence[str]:
    found = model.capability_proofs
    by_proof = ([name for name, proof in found.items() if proof == each] for each in PROOFS)
    listed = (", ".join(names) or NOTHING for names in (model.capabilities, *by_proof))
    return [escape_markdown(cell) for cell in (model.id, *listed)]


def _variants(run: RunReport) -> Iterator[str]:
    """Yield a table for each model with variants."""
    for comparison in run.variants:
        yield f"### Variants of {escape_markdown(comparison.model)}"
        rows = (variant_cells(each) for each in comparison.variants)
        yield _table(VARIANT_HEADINGS, (
            [escape_markdown(cell if isinstance(cell, str) else cell[0]) for cell in cells]
            for cells in rows
        ))  # fmt: skip


def _row(run: RunReport, model: ModelReport) -> Sequence[str]:
    results = run.results_of(model)
    result = representative_of(results) if results else None
    check = f" ({model.verified_check})" if model.verified_check == "deep" else ""
    return (
        escape_markdown(model.id),
        escape_markdown(shown_host(result.host)) if result else NOTHING,
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


def _table(headings: Sequence[str], rows: Iterable[Sequence[TableCell]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    texts = ([cell if isinstance(cell, str) else cell[0] for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in texts)


def _more(count: int, thing: str) -> str:
    return f"... and {count_of(count, f'more {thing}')}" if count > 0 else ""
