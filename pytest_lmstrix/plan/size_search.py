"""Searches for the largest context length that works, one size at a time. Pure.

Each size that is tried costs a load. A search assumes that a model which works at a size works at
every smaller one; where that is not so, the answer is still a size that was seen to work.
"""

from __future__ import annotations

from collections.abc import Generator

FLOOR = 4_096
"""Tokens below which no size is tried below a failure."""
MOST_LOADS = 6
"""Loads that one search below a failure may cost, retries included."""

_Steps = Generator[int, bool, int | None]
"""Yields sizes to try, takes whether they work, returns the answer."""


class SizeSearch:
    """Try `next_size`, pass the result to `add_result`, until there is no next size."""

    def __init__(self, steps: _Steps) -> None:
        self._steps = steps
        self.next_size: int | None = None
        """The size to try next, tokens; `None` when the search is over."""
        self.answer: int | None = None
        """The largest size that works, once the search is over; `None` if none does."""
        self._advance(None)

    def add_result(self, works: bool) -> None:
        """Report whether `next_size` works."""
        self._advance(works)

    def _advance(self, works: bool | None) -> None:
        try:
            self.next_size = self._steps.send(works)  # type: ignore[arg-type]
        except StopIteration as over:
            self.next_size, self.answer = None, over.value


def search_below(
    size: int,
    *,
    known_good: int | None = None,
    granted: int | None = None,
    estimated: int | None = None,
) -> SizeSearch:
    """Search the largest of `steps_down(size)` that works, where `size` does not.

    A smaller context that was `granted` is tried first, and is the answer if it works. Then the
    largest step up to `estimated`, the largest size for which the memory suffices. If it fails, the
    lowest step, unless a smaller size is `known_good`: a model that fails there fails everywhere.
    Then the steps between are bisected. At most `MOST_LOADS` sizes are tried.
    """
    return SizeSearch(_below(size, known_good, granted, estimated))


def search_up_to(
    limit: int, *, good: int | None = None, bad: int | None = None, estimated: int | None = None
) -> SizeSearch:
    """Search the largest size up to `limit` that works, within `tolerance`.

    `estimated`, the largest size for which the memory suffices, is tried first.
    `good` and `bad` are known sizes. A `bad` that is not larger than `good` is ignored, and so is
    one that leaves nothing to try: that size may have been too small for a question.
    """
    return SizeSearch(_up_to(limit, good, bad, estimated))


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


def tolerance(size: int) -> int:
    """How near `search_up_to` comes: 1 % of the size or 256 tokens, whichever is more."""
    return max(256, size // 100)


def _below(size: int, known_good: int | None, granted: int | None, estimated: int | None) -> _Steps:
    lowest = max(FLOOR - 1, known_good or 0)
    loads = MOST_LOADS
    steps = steps_down(size, lowest)
    if granted is not None and lowest < granted < size:
        loads -= 1
        if (yield granted):
            return granted
        steps = [step for step in steps if step < granted]
    good, bad = len(steps), -1
    start = next((at for at, step in enumerate(steps) if step <= (estimated or 0)), None)
    if start is not None:
        loads -= 1
        if (yield steps[start]):
            good = start
        else:
            bad = start
    if known_good is None and good == len(steps):
        if bad + 1 >= len(steps):
            return None
        good -= 1
        loads -= 1
        if not (yield steps[good]):
            return None
    while good - bad > 1 and loads > 0:
        middle = (good + bad) // 2
        loads -= 1
        if (yield steps[middle]):
            good = middle
        else:
            bad = middle
    return steps[good] if good < len(steps) else known_good


def _up_to(limit: int, good: int | None, bad: int | None, estimated: int | None) -> _Steps:
    low = min(good or 0, limit)
    least = low or tolerance(0)
    high = bad if bad is not None and least < bad <= limit else None
    if estimated is not None and low < estimated < (high or limit):
        if (yield estimated):
            low = least = estimated
        else:
            high = estimated
    if high is None:
        if low == limit or (yield limit):
            return limit
        high = limit
    if low == 0 and high > 2 * FLOOR:
        if (yield FLOOR):
            low = FLOOR
        else:
            high = FLOOR
    while high - low > tolerance(low) and high > 1:
        middle = (low + high) // 2
        if (yield middle):
            low = middle
        else:
            high = middle
    return low or None
