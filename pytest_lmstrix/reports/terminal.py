"""The tables at the end of the terminal output: models and changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_lmstrix.core.formatting import rate, seconds, tokens, verdict_text
from pytest_lmstrix.core.table import Paint, TableCell, table
from pytest_lmstrix.registry.regressions import Change
from pytest_lmstrix.reports.changes import MEASURES, basis, format_measure, where
from pytest_lmstrix.reports.run_json import RunReport, representative_of

_HEADINGS = ("model", "declared", "verified", "first bad", "verdict", "load", "TTFT", "tok/s")
EXPENDABLE = ("load", "declared", "TTFT", "first bad", "tok/s", "verified")
STYLES = {"passed": "green", "xfailed": "yellow", "skipped": "yellow"}
CHANGE_HEADINGS = ("changed", "what", "where", "before", "now", "known")
CHANGE_EXPENDABLE = ("known", "what", "where")
_MOST_CHANGES = 20


def closing_table(run: RunReport, *, width: int | None, paint: Paint) -> Iterator[str]:
    """Return the lines of the table of tested models."""
    lines: list[list[TableCell]] = []
    for model in run.tested:
        results = run.results[model.id]
        result = representative_of(results)
        style = STYLES.get(result.outcome, "red")
        lines.append([
            model.id,
            tokens(model.context_limit),
            tokens(model.verified_context),
            tokens(model.smallest_bad),
            (verdict_text(result.verdict, results), style),
            seconds(result.load_seconds),
            seconds(result.ttft_seconds),
            rate(result.decode_tokens_per_second),
        ])  # fmt: skip
    return table(_HEADINGS, lines, width=width, paint=paint, expendable=EXPENDABLE)


def changes_table(changes: Sequence[Change], *, width: int | None, paint: Paint) -> Iterator[str]:
    """Return the lines of the table of `changes`, which are sorted worst first; truncated."""
    lines: list[list[TableCell]] = [
        [
            (change.model, "red" if change.is_regression else ""),
            change.kind.replace("_", " ") if change.measure == "verdict"
            else f"{change.kind.partition('_')[0]} {MEASURES[change.measure]}",
            where(change),
            format_measure(change, change.before),
            format_measure(change, change.after),
            basis(change),
        ]
        for change in changes[:_MOST_CHANGES]
    ]  # fmt: skip
    return table(CHANGE_HEADINGS, lines, width=width, paint=paint, expendable=CHANGE_EXPENDABLE)
