"""Strips of marks as small SVGs: sizes on a logarithmic axis, and the last runs.

The marks differ in shape: a bar works, a cross fails, a dot is unclear.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from math import log2

from markupsafe import Markup
from msgspec import Struct

from pytest_lmstrix.core.formatting import tokens
from pytest_lmstrix.core.types import Result

STRIP_WIDTH, STRIP_HEIGHT = 120, 14
LEAST_SIZE = 512
"""Left end of the axis of sizes."""
LAST_RUNS = 20
_MOST_NAMED = 8
"""Sizes named one by one in the description of a strip."""
_STATES = ("works", "fails", "unclear")


class Axis(Struct, frozen=True, kw_only=True):
    """The axis of sizes, the same for all models."""

    high: int

    def __call__(self, size: int) -> float:
        span = log2(max(self.high, 2 * LEAST_SIZE) / LEAST_SIZE)
        share = log2(max(size, LEAST_SIZE) / LEAST_SIZE) / span
        return 4 + min(1.0, share) * (STRIP_WIDTH - 8)

    @property
    def labels(self) -> list[tuple[float, str]]:
        """Position and text of a few powers of two, the largest first."""
        largest = int(log2(max(self.high, 2 * LEAST_SIZE)))
        powers = range(largest, int(log2(LEAST_SIZE)), -3)
        return [(self(2**each), f"{2 ** (each - 10)}k") for each in powers]


def state_name(result: Result) -> str:
    """Return `works`, `fails` or `unclear`."""
    evidence = result.verdict.evidence
    if evidence == "good":
        return "works"
    return "unclear" if evidence in ("unclear", "none") else "fails"


def strip_of_sizes(sizes: dict[int, Result], declared: int | None, axis: Axis) -> Markup:
    """Return the sizes of a model; a line reaches to its `declared` context."""
    marks = [(axis(size), state_name(result)) for size, result in sizes.items()]
    line = f'<path class=t d="M4 13H{_number(axis(declared))}"/>' if declared else ""
    return _svg(marks, _sizes_text(sizes), line)


def strip_of_runs(runs: Sequence[Result]) -> Markup:
    """Return one mark for each of the last runs, the newest at the right."""
    runs = runs[-LAST_RUNS:]
    start = LAST_RUNS - len(runs)
    states = [state_name(result) for result in runs]
    marks = [((start + place) * 6 + 3.0, state) for place, state in enumerate(states)]
    line = _line_of_passes(start, states)
    counts = [f"{states.count(state)} {state}" for state in _STATES if state in states]
    newest = f"; newest {runs[-1].verdict} on {runs[-1].at:%Y-%m-%d}" if runs else ""
    others = [mark for mark in marks if mark[1] != "works"]
    return _svg(others, f"Last {len(runs)} runs: {', '.join(counts) or 'none'}{newest}", line)


def _line_of_passes(start: int, states: Sequence[str]) -> str:
    """Return successive passes as one dashed line, which keeps the page small."""
    path, place = "", start
    for state, same in groupby(states):
        count = len(list(same))
        if state == "works":
            path += f"M{place * 6 + 2} 6h{count * 6 - 3}"
        place += count
    return f'<path class=r d="{path}"/>' if path else ""


def _sizes_text(sizes: dict[int, Result]) -> str:
    parts = []
    for state in _STATES:
        found = sorted(size for size, result in sizes.items() if state_name(result) == state)
        if len(found) > _MOST_NAMED:
            parts.append(
                f"{state} at {len(found)} sizes, {tokens(found[0])} to {tokens(found[-1])}"
            )
        elif found:
            parts.append(f"{state} at {'; '.join(map(tokens, found))}")
    return ", ".join(parts).capitalize() or "No size tested"


def _svg(marks: Iterable[tuple[float, str]], text: str, line: str) -> Markup:
    drawn: dict[str, str] = dict.fromkeys(_STATES, "")
    for x, state in marks:
        at = _number(x - 2 if state == "fails" else x - 1 if state == "unclear" else x)
        drawn[state] += {
            "works": f"M{at} 1v10",
            "fails": f"M{at} 4l4 5m0-5l-4 5",
            "unclear": f"M{at} 6h2",
        }[state]
    paths = "".join(f'<path class={state[0]} d="{path}"/>' for state, path in drawn.items() if path)
    body = f"<title>{{}}</title>{line}{paths}"
    head = f'<svg class=strip viewBox="0 0 {STRIP_WIDTH} {STRIP_HEIGHT}" role=img>'
    return Markup(f"{head}{body}</svg>").format(text)


def _number(value: float) -> str:
    return f"{value:.0f}"
