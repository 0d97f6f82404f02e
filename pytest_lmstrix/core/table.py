"""Tables of any length as lines of text, never wider than the terminal.

rich's own take eighty times as long, which is seconds for 10,000 models, and drop no columns.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence

from rich.cells import cell_len, set_cell_size

from pytest_lmstrix.core.sanitize import one_line

TableCell = str | tuple[str, str]
"""Text, or text and a colour."""
Paint = Callable[[str, str], str]
"""Text and a colour in, the same for the terminal out."""
GAP, NARROW_GAP = "  ", " "
FIRST_COLUMN = 16
"""Columns of the terminal that the first column keeps, if its texts are as long."""
LEAST_PROSE = 30
"""Columns of the terminal that text needs beside other cells."""
CELL_LIMIT = 1_000
"""Characters of a cell that are kept."""


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[TableCell]],
    *,
    paint: Paint,
    width: int | None = None,
    left: Collection[str] = (),
    expendable: Sequence[str] = (),
) -> Iterator[str]:
    """The lines of a table; the first column and those of `left` are flush left.

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
    for given, row in zip([headings, *rows], texts, strict=True):
        row[0] = _fitted(row[0], widths[0])
        yield gap.join(
            _padded(given[place], row[place], widths[place], paint,
                    left=place == 0 or headings[place] in left)
            for place in kept
        ).rstrip()  # fmt: skip


def prose(
    rows: Sequence[Sequence[TableCell]],
    *,
    paint: Paint,
    width: int | None = None,
    right: Collection[int] = (),
) -> Iterator[str]:
    """Rows whose last cell is text, which goes on below itself; cells `right` are flush right.

    Where the other cells leave it too little room, it has lines of its own.
    """
    texts = _texts(rows)
    widths = _widths(texts)[:-1]
    margin = sum(widths) + len(GAP) * len(widths)
    below = width is not None and width - margin < LEAST_PROSE
    if below:
        margin = len(2 * GAP)
    room = CELL_LIMIT if width is None else max(1, width - margin)
    for given, row in zip(rows, texts, strict=True):
        head = [
            _padded(given[place], row[place], wide, paint, left=place not in right)
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
    return [max(map(_cells, column)) for column in zip(*texts, strict=True)]


def _cells(text: str) -> int:
    """Columns of the terminal that `text` takes."""
    return len(text) if text.isascii() else cell_len(text)


def _padded(given: TableCell, text: str, width: int, paint: Paint, *, left: bool) -> str:
    padding = " " * (width - _cells(text))
    shown = text if isinstance(given, str) else paint(text, given[1])
    return shown + padding if left else padding + shown


def _fitted(text: str, width: int) -> str:
    return text if _cells(text) <= width else _cut(text, width)


def _cut(text: str, width: int) -> str:
    """The beginning and the end of `text`: names that share either stay distinct."""
    tail = (width - 1) // 2
    end = set_cell_size(text[::-1], tail)[::-1]
    return set_cell_size(text, width - 1 - tail) + "…" + end


def _total(widths: Sequence[int], kept: Sequence[int], gap: str) -> int:
    return sum(widths[place] for place in kept) + len(gap) * (len(kept) - 1)
