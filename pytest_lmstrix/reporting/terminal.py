"""The closing table: a line for each model that was tested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from pytest_lmstrix.reporting.figures import rate, seconds, tokens
from pytest_lmstrix.reporting.table import Cell, render
from pytest_lmstrix.types import Model, Result
from pytest_lmstrix.verdicts import Verdict

HEADINGS = ("model", "declared", "verified", "first bad", "verdict", "load", "TTFT", "tokens/s")
EXPENDABLE = ("load", "declared", "TTFT", "first bad", "tokens/s", "verified")
STYLES = {"passed": "green", "xfailed": "yellow", "skipped": "yellow"}


class Row(Struct, frozen=True, kw_only=True):
    """A model, what this run found, and what is known of it now; sizes in tokens."""

    model: Model
    results: tuple[Result, ...]
    verified: int | None = None
    first_bad: int | None = None


def telling(results: Iterable[Result]) -> Result:
    """The result that stands for all of a model: the first that is not `ok`, else the largest."""
    ordered = sorted(results, key=lambda result: result.context_length)
    bad = (result for result in ordered if result.verdict is not Verdict.OK)
    return next(bad, ordered[-1])


def closing_table(rows: Sequence[Row], *, width: int, color: bool) -> str:
    lines: list[list[Cell]] = []
    for row in rows:
        result = telling(row.results)
        style = STYLES.get(result.outcome, "red")
        lines.append([
            row.model.id,
            tokens(row.model.context_limit),
            tokens(row.verified),
            tokens(row.first_bad),
            (result.verdict.value, style),
            seconds(result.load_seconds),
            seconds(result.ttft_seconds),
            rate(result.decode_tokens_per_second),
        ])  # fmt: skip
    return render(HEADINGS, lines, width=width, color=color, expendable=EXPENDABLE)
