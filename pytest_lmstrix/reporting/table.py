"""Tables as text, as wide as the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_lmstrix.text import one_line

Cell = str | tuple[str, str]
"""Text, or text and a style."""


def render(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, width: int, color: bool
) -> str:
    """A table whose first column is cut before any other, and the rest right-aligned."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        first = place == 0
        table.add_column(
            heading,
            justify="left" if first else "right",
            no_wrap=True,
            overflow="ellipsis",
            min_width=None if first else len(heading),
        )
    for row in rows:
        table.add_row(*map(_text, row))
    out = StringIO()
    Console(
        file=out, width=width, force_terminal=color, no_color=not color, highlight=False,
        legacy_windows=False,
    ).print(table)  # fmt: skip
    return out.getvalue().rstrip()


def _text(cell: Cell) -> Text:
    text, style = cell if isinstance(cell, tuple) else (cell, "")
    return Text(one_line(text), style=style)
