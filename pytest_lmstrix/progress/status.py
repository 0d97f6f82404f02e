"""What is under way, as a board for a terminal or a line for a log, and what is left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pytest_lmstrix.core.formatting import duration

BAR_COLUMNS = 20
LEAST_FOR_BAR = 100
"""Columns of a terminal; with fewer the words need the room."""


class Activity(Struct, frozen=True, kw_only=True):
    """What one process is doing."""

    what: str
    """Such as a model and its context length."""
    state: str
    """How far it is."""
    began: float
    """Seconds since the epoch."""
    fraction: float | None = None
    """0..1, where there is a measure of it."""
    urgent: bool = False
    """Worth a line at once where lines are few."""


class Rest(Struct, frozen=True, kw_only=True):
    """How far the run is."""

    done: int
    total: int
    """Tests; 0 as long as they are not known."""
    seconds: float | None
    """Until it ends, if there is anything to go by."""

    def __str__(self) -> str:
        case = f"case {self.done + 1:,} of {self.total:,}" if self.done < self.total else ""
        left = f"about {duration(self.seconds)} left" if self.seconds is not None else ""
        return ", ".join(filter(None, (case, left)))


def status_line(statuses: Sequence[Activity], now: float, rest: Rest) -> str:
    """All of it in a line of a log; `now` is as `Activity.began`."""
    doing = (f"{each.what}: {each.state} ({duration(now - each.began)})" for each in statuses)
    return " | ".join([*doing, str(rest)]).removesuffix(" | ")


def board(
    statuses: Sequence[Activity], now: float, rest: Rest, *, columns: int = LEAST_FOR_BAR
) -> Group:
    """The same for a terminal of so many `columns`: a line for each status, and one for the run."""
    lines = Table.grid(padding=(0, 2, 0, 0))
    for gives_way in (True, True, False, False):
        lines.add_column(no_wrap=not gives_way)
    for each in statuses:
        bar: RenderableType = ""
        if each.fraction is not None and columns >= LEAST_FOR_BAR:
            bar = ProgressBar(total=1.0, completed=each.fraction, width=BAR_COLUMNS)
        lines.add_row(_cut(each.what), _cut(each.state), bar, duration(now - each.began))
    return Group(lines, *([_cut(str(rest))] if str(rest) else []))


def _cut(words: str) -> Text:
    return Text(words, no_wrap=True, overflow="ellipsis")


class Urgent:
    """Picks what is worth a line at once: each thing is, once."""

    def __init__(self) -> None:
        self._said: set[tuple[str, str]] = set()

    def unsaid(self, statuses: Iterable[Activity]) -> list[Activity]:
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
