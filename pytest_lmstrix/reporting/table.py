"""Tables as text, never wider than the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from io import StringIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_lmstrix.text import one_line

Cell = str | tuple[str, str]
"""Text, or text and a style of rich."""
GAP = 2
FIRST_COLUMN = 16
"""Columns of the terminal that the first column keeps, if its texts are as long."""


def render(
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    width: int,
    color: bool,
    expendable: Sequence[str] = (),
) -> str:
    """A table whose first column is cut where the rest leaves too little room.

    Where even that is not enough, the columns of `expendable` go, the first of them first.
    """
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = {
        heading: max([cell_len(heading), *(cell_len(row[place].plain) for row in texts)])
        for place, heading in enumerate(headings)
    }
    kept = set(headings)
    for heading in expendable:
        if _needed(widths, kept, headings[0]) <= width:
            break
        kept.discard(heading)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for place, heading in enumerate(headings):
        if place == 0:
            room = width - _needed(widths, kept, headings[0]) + min(widths[heading], FIRST_COLUMN)
            table.add_column(heading, no_wrap=True, overflow="ellipsis", max_width=max(room, 1))
        elif heading in kept:
            table.add_column(heading, justify="right", no_wrap=True, min_width=widths[heading])
    for row in texts:
        cells = (cell for cell, heading in zip(row, headings, strict=True) if heading in kept)
        table.add_row(*cells)
    out = StringIO()
    Console(
        file=out,
        width=width,
        force_terminal=color,
        no_color=not color,
        highlight=False,
        legacy_windows=False,
    ).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _needed(widths: dict[str, int], kept: Collection[str], first: str) -> int:
    others = sum(widths[heading] + GAP for heading in kept if heading != first)
    return others + min(widths[first], FIRST_COLUMN)


def _text(cell: Cell) -> Text:
    text, style = cell if isinstance(cell, tuple) else (cell, "")
    return Text(one_line(text), style=style)
