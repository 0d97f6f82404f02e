"""Searches for the largest context length that works. Pure: what a size does is asked of `works`.

Each answer of `works` costs a load. That it works at a size means that it works at every smaller
one; where a model is not so, the answer is still a size that was seen to work.
"""

from __future__ import annotations

from collections.abc import Callable

FLOOR = 4_096
"""Tokens below which nothing is tried on the way down."""
MOST_LOADS = 6
"""Loads that one way down may cost, second tries included."""

Works = Callable[[int], bool]


def steps_down(size: int, above: int = FLOOR - 1) -> list[int]:
    """The 10 % reductions of `size` that are larger than `above`, descending: 0.9, 0.81, ..."""
    steps: list[int] = []
    numerator, denominator = size, 1
    while True:
        numerator, denominator = numerator * 9, denominator * 10
        step = numerator // denominator
        if step <= above:
            return steps
        steps.append(step)


def largest_below(
    size: int, works: Works, *, known_good: int | None = None, granted: int | None = None
) -> int | None:
    """The largest of `steps_down(size)` that works, where `size` does not; `None` if none does.

    A context that was `granted` instead is tried first, and is the answer if it works. Then the
    lowest step, unless a smaller size is `known_good`: what fails there fails everywhere. Then
    the steps between are bisected. `works` is asked `MOST_LOADS` times at most.
    """
    lowest = max(FLOOR - 1, known_good or 0)
    loads = MOST_LOADS
    steps = steps_down(size, lowest)
    if granted is not None and lowest < granted < size:
        loads -= 1
        if works(granted):
            return granted
        steps = [step for step in steps if step < granted]
    good = len(steps)
    if known_good is None:
        if not steps:
            return None
        good -= 1
        loads -= 1
        if not works(steps[good]):
            return None
    bad = -1
    while good - bad > 1 and loads > 0:
        middle = (good + bad) // 2
        loads -= 1
        if works(steps[middle]):
            good = middle
        else:
            bad = middle
    return steps[good] if good < len(steps) else known_good


def tolerance(size: int) -> int:
    """How near `largest` comes: 1 % of the size or 256 tokens, whichever is more."""
    return max(256, size // 100)


def largest(
    works: Works, *, good: int | None = None, bad: int | None = None, limit: int
) -> int | None:
    """The largest size up to `limit` that works, within `tolerance`; `None` if none does.

    `good` and `bad` are what is known; a `bad` that is not larger than `good` is not believed, nor
    one that leaves nothing to try: so small a size may have had no room for a question.
    """
    low = min(good or 0, limit)
    least = low or tolerance(0)
    high = bad if bad is not None and least < bad <= limit else None
    if high is None:
        if low == limit or works(limit):
            return limit
        high = limit
    if low == 0 and high > 2 * FLOOR:
        if works(FLOOR):
            low = FLOOR
        else:
            high = FLOOR
    while high - low > tolerance(low) and high > 1:
        middle = (low + high) // 2
        if works(middle):
            low = middle
        else:
            high = middle
    return low or None
