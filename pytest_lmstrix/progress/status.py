"""Activities and remaining time, and a line of them for logs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median

from msgspec import Struct

from pytest_lmstrix.core.formatting import duration


class Activity(Struct, frozen=True, kw_only=True):
    """The current work of one process."""

    what: str
    """Such as a model and its context length."""
    state: str
    """Progress as text."""
    began: float
    """Seconds since the epoch."""
    fraction: float | None = None
    """Progress, 0..1, if measurable."""
    urgent: bool = False
    """Logged at once instead of at the next interval."""


class Rest(Struct, frozen=True, kw_only=True):
    """Progress of the run."""

    done: int
    total: int
    """Number of tests; 0 until collected."""
    seconds: float | None
    """Estimated rest, if there is data for an estimate."""

    def __str__(self) -> str:
        case = f"case {self.done + 1:,} of {self.total:,}" if self.done < self.total else ""
        left = f"about {duration(self.seconds)} left" if self.seconds is not None else ""
        return ", ".join(filter(None, (case, left)))


def status_line(statuses: Sequence[Activity], now: float, rest: Rest) -> str:
    """Return a line for logs; `now` is in seconds since the epoch."""
    doing = (f"{each.what}: {each.state} ({duration(now - each.began)})" for each in statuses)
    return " | ".join([*doing, str(rest)]).removesuffix(" | ")


class Urgent:
    """Selects each urgent activity once."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def select_new(self, statuses: Iterable[Activity]) -> list[Activity]:
        """Return the urgent `statuses` not returned before."""
        fresh = [each for each in statuses
                 if each.urgent and (each.what, each.state) not in self._seen]  # fmt: skip
        self._seen.update((each.what, each.state) for each in fresh)
        return fresh


class Estimate:
    """Estimates the rest of a run: `expected` seconds of tests, scaled by the pace so far.

    `workers` is the number of tests run in parallel.
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
        """Add the duration of a phase of `test`."""
        self._took[test] = self._took.get(test, 0.0) + seconds

    def finish(self, test: str) -> None:
        """Mark `test` as done."""
        self._left.pop(test, None)

    def rest(self) -> float | None:
        """Return the remaining seconds; `None` without data, or at the end."""
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
