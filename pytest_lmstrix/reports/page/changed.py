"""What changed since earlier runs, as lines of report.html. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.registry.history.change import Change
from pytest_lmstrix.reports.changes import MEASURES, basis, format_measure, where
from pytest_lmstrix.reports.overview.broken import break_text
from pytest_lmstrix.reports.page.model_rows import ModelRow
from pytest_lmstrix.reports.run_json import RunReport


class ChangeLine(Struct, frozen=True, kw_only=True):
    """One change, formatted."""

    kind: str
    worse: bool
    name: str
    anchor: str
    """The HTML id of the model's row; empty if it has none."""
    what: str
    """Such as `full at 60,000`, or the measure."""
    before: str
    after: str
    since: str
    """Since when, or with what it is compared."""


def change_lines(run: RunReport, rows: Sequence[ModelRow]) -> tuple[ChangeLine, ...]:
    """Return a line for each change of `run`, worst first."""
    by_model = {row.model.id: row for row in rows}
    return tuple(_line(change, run, by_model.get(change.model)) for change in run.changes)


def kinds_text(lines: Sequence[ChangeLine]) -> str:
    """Return such as `2 newly broken, 1 slower`."""
    counts = Counter(line.kind for line in lines)
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())


def _line(change: Change, run: RunReport, row: ModelRow | None) -> ChangeLine:
    measure = "" if change.measure == "verdict" else MEASURES[change.measure]
    return ChangeLine(
        kind=change.kind.replace("_", " "),
        worse=change.is_regression,
        name=one_line(change.model),
        anchor=row.anchor if row else "",
        what=one_line(", ".join(filter(None, (measure, where(change))))),
        before=format_measure(change, change.before).replace("_", " "),
        after=format_measure(change, change.after).replace("_", " "),
        since=one_line(break_text(run, change) or basis(change) or "compared with the run before"),
    )
