"""What is under way as one line of text that fits, and how long the rest will take. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median

from msgspec import Struct
from rich.cells import cell_len, set_cell_size

from pytest_lmstrix.reporting.figures import duration

LEAST_ROOM = 16
"""Columns; less tells nothing."""


class Status(Struct, frozen=True, kw_only=True):
    """What one process is doing."""

    what: str
    """Such as a model and its context length."""
    state: str
    """How far it is."""
    began: float
    """Seconds since the epoch."""
    urgent: bool = False
    """Worth a line at once where lines are few."""


def status_line(
    statuses: Sequence[Status], now: float, *, done: int, total: int, rest: float | None, room: int
) -> str:
    """As much as fits into `room` columns, the most telling first; `rest` is in seconds."""
    full = " | ".join(f"{each.what}: {each.state} ({duration(now - each.began)})"
                      for each in statuses)  # fmt: skip
    short = " | ".join(f"{each.state} ({duration(now - each.began)})" for each in statuses)
    head = f"[{done + 1}/{total}] " if 0 <= done < total else ""
    left = f", about {duration(rest)} left" if rest is not None else ""
    for line in (head + full + left, head + full, head + short + left, head + short):
        if cell_len(line) <= room:
            return line
    return set_cell_size(head + short, room) if room >= LEAST_ROOM else ""


class Urgent:
    """Picks what is worth a line at once: each thing is, once."""

    def __init__(self) -> None:
        self._said: set[tuple[str, str]] = set()

    def unsaid(self, statuses: Iterable[Status]) -> list[Status]:
        """Those of `statuses` that are urgent and were not given before."""
        fresh = [each for each in statuses
                 if each.urgent and (each.what, each.state) not in self._said]  # fmt: skip
        self._said.update((each.what, each.state) for each in fresh)
        return fresh


class Estimate:
    """How long the rest of a run takes: `expected` seconds of tests, corrected by what they took.

    `workers` is how many tests run at a time.
    """

    def __init__(self, tests: Sequence[str], expected: Mapping[str, float], workers: int = 1):
        self.total = len(tests)
        self._expected = dict(expected)
        self._left = dict.fromkeys(tests)
        self._took: dict[str, float] = {}
        self._workers = workers

    @property
    def done(self) -> int:
        return self.total - len(self._left)

    def add(self, test: str, seconds: float) -> None:
        """A phase of `test` took so long."""
        self._took[test] = self._took.get(test, 0.0) + seconds

    def finish(self, test: str) -> None:
        self._left.pop(test, None)

    def rest(self) -> float | None:
        """Seconds; `None` while there is nothing to go by."""
        both = [(self._took[test], self._expected[test])
                for test in self._took if test in self._expected]  # fmt: skip
        planned = sum(expected for _, expected in both)
        pace = sum(took for took, _ in both) / planned if planned > 0 else 1.0
        known = [*(seconds * pace for seconds in self._expected.values())]
        usual = mean(self._took.values()) if self._took else median(known) if known else None
        if usual is None or not self._left:
            return None
        expected = ((self._expected[test] * pace if test in self._expected else usual)
                    for test in self._left)  # fmt: skip
        return sum(expected) / self._workers
