"""Renders tables as lines of text that fit the terminal.

rich's tables take eighty times as long, seconds for 10,000 models, and cannot drop columns.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence

from rich.cells import cell_len, set_cell_size

from pytest_lmstrix.core.formatting import NOTHING
from pytest_lmstrix.core.sanitize import one_line

TableCell = str | tuple[str, str]
"""Text, or text and a colour."""
Paint = Callable[[str, str], str]
"""Function of a text and a colour that returns the text with terminal codes."""
GAP, NARROW_GAP = "  ", " "
FIRST_COLUMN = 16
"""Least width of the first column, if its texts need it; in terminal columns."""
LEAST_PROSE = 30
"""Least width of text beside other cells, in terminal columns."""
CELL_LIMIT = 1_000
"""Longest text of a cell, in characters."""


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[TableCell]],
    *,
    paint: Paint,
    width: int | None = None,
    left: Collection[str] = (),
    expendable: Sequence[str] = (),
) -> Iterator[str]:
    """Return the lines of a table; the first column and those of `left` are flush left.

    Where `width` is not enough, the gaps get narrower, then the columns of `expendable` go, the
    first of them first, then the middle of the first column. Cells may hold anything: it is made
    harmless.
    """
    texts = _texts([headings, *rows])
    widths = _widths(texts)
    kept = list(range(len(headings)))
    gap = GAP
    if width is not None and _total(widths, kept, gap) > width:
        gap = NARROW_GAP
        for heading in expendable:
            if _total(widths, kept, gap) - max(0, widths[0] - FIRST_COLUMN) <= width:
                break
            kept.remove(headings.index(heading))
        widths[0] = max(1, min(widths[0], widths[0] + width - _total(widths, kept, gap)))
    for cells, row in zip([headings, *rows], texts, strict=True):
        row[0] = _fit(row[0], widths[0])
        yield gap.join(
            _pad(cells[place], row[place], widths[place], paint,
                 left=place == 0 or headings[place] in left)
            for place in kept
        ).rstrip()  # fmt: skip


def without_alike(
    heading: str, headings: Sequence[str], rows: Sequence[Sequence[TableCell]]
) -> tuple[list[str], list[list[TableCell]]]:
    """Return headings and rows without column `heading` if all rows have the same value there."""
    place = headings.index(heading)
    if len({row[place] for row in rows} - {NOTHING}) > 1:
        return list(headings), [list(row) for row in rows]
    return (
        [*headings[:place], *headings[place + 1 :]],
        [[*row[:place], *row[place + 1 :]] for row in rows],
    )


def prose(
    rows: Sequence[Sequence[TableCell]],
    *,
    paint: Paint,
    width: int | None = None,
    right: Collection[int] = (),
) -> Iterator[str]:
    """Return the lines of rows whose last cell is wrapped text; cells `right` are flush right.

    If the other cells leave too little room, the text goes on separate lines.
    """
    texts = _texts(rows)
    widths = _widths(texts)[:-1]
    margin = sum(widths) + len(GAP) * len(widths)
    below = width is not None and width - margin < LEAST_PROSE
    if below:
        margin = len(2 * GAP)
    room = CELL_LIMIT if width is None else max(1, width - margin)
    for cells, row in zip(rows, texts, strict=True):
        head = [
            _pad(cells[place], row[place], wide, paint, left=place not in right)
            for place, wide in enumerate(widths)
        ]
        fits = len(row[-1]) <= room
        lines = [row[-1]] if fits else textwrap.wrap(row[-1], room)
        beside = [] if below else lines[:1]
        yield GAP.join([*head, *beside]).rstrip()
        yield from (" " * margin + line for line in lines[len(beside) :] if line)


def _texts(rows: Sequence[Sequence[TableCell]]) -> list[list[str]]:
    return [
        [one_line(cell if isinstance(cell, str) else cell[0], CELL_LIMIT) for cell in row]
        for row in rows
    ]


def _widths(texts: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(_width, column)) for column in zip(*texts, strict=True)]


def _width(text: str) -> int:
    """Return the width of `text` in terminal columns."""
    return len(text) if text.isascii() else cell_len(text)


def _pad(cell: TableCell, text: str, width: int, paint: Paint, *, left: bool) -> str:
    padding = " " * (width - _width(text))
    painted = text if isinstance(cell, str) else paint(text, cell[1])
    return painted + padding if left else padding + painted


def _fit(text: str, width: int) -> str:
    return text if _width(text) <= width else _cut(text, width)


def _cut(text: str, width: int) -> str:
    """Shorten `text` in the middle, so that names with a common start or end stay distinct."""
    tail = (width - 1) // 2
    end = set_cell_size(text[::-1], tail)[::-1]
    return set_cell_size(text, width - 1 - tail) + "…" + end


def _total(widths: Sequence[int], kept: Sequence[int], gap: str) -> int:
    return sum(widths[place] for place in kept) + len(gap) * (len(kept) - 1)
