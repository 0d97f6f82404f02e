"""Renders activities and remaining time as a board for terminals. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pytest_lmstrix.core.formatting import duration
from pytest_lmstrix.progress.status import Activity, Rest

BAR_COLUMNS = 20
LEAST_FOR_BAR = 100
"""Least terminal width for progress bars, in columns."""


def board(
    statuses: Sequence[Activity], now: float, rest: Rest, *, columns: int = LEAST_FOR_BAR
) -> Group:
    """Return a board for a terminal: a line for each activity, and one for the run."""
    lines = Table.grid(padding=(0, 2, 0, 0))
    for may_shrink in (True, True, False, False):
        lines.add_column(no_wrap=not may_shrink)
    for each in statuses:
        bar: RenderableType = ""
        if each.fraction is not None and columns >= LEAST_FOR_BAR:
            bar = ProgressBar(total=1.0, completed=each.fraction, width=BAR_COLUMNS)
        lines.add_row(_cut(each.what), _cut(each.state), bar, duration(now - each.began))
    return Group(lines, *([_cut(str(rest))] if str(rest) else []))


def _cut(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")
