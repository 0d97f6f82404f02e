"""Slow-downs that do not become usual, and speeds of the check made for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pytest_lmstrix.core.types import Acceptance, Result
from pytest_lmstrix.registry.history.earlier import MOST_HISTORY, History
from pytest_lmstrix.registry.regressions import Change, compare
from tests.registry.results import a_result

SPEED = "decode_tokens_per_second"
FIRST = datetime(2026, 3, 1, tzinfo=UTC)


def measured(
    *values: float, check: str = "speed", version: str = "1", day: int = 0, **more: Any
) -> list[Result]:
    """One result a day."""
    return [
        a_result(
            check=check, engine_version=version, at=FIRST + timedelta(days=day + number),
            **{SPEED: value}, **more,
        )
        for number, value in enumerate(values)
    ]  # fmt: skip


def changes(before: list[Result | Acceptance], *now: Result) -> tuple[Change, ...]:
    history = History()
    for line in before:
        if isinstance(line, Acceptance):
            history.accept(line)
        else:
            history.add(line)
    return compare(now, history)


def accepted(day: int) -> Acceptance:
    return Acceptance(at=FIRST + timedelta(days=day), by="ann", model="m")


@pytest.mark.parametrize("slow", [1, 9, 11, MOST_HISTORY + 1, 400])
def test_a_slow_down_within_one_version_never_becomes_usual(slow: int) -> None:
    before = [*measured(*[50.0] * 10), *measured(*[25.0] * slow, day=10)]
    (change,) = changes(before, *measured(25.0, day=10 + slow))
    assert (change.kind, change.before, change.after) == ("slower", 50.0, 25.0)
    assert change.is_regression
    if slow > MOST_HISTORY:
        assert change.baseline == FIRST


def test_a_slow_down_that_came_with_an_update_outlasts_the_next_update() -> None:
    before = [
        *measured(*[50.0] * 6, version="1"),
        *measured(*[25.0] * 30, version="2", day=6),
        *measured(*[25.0] * 30, version="3", day=36),
    ]
    (change,) = changes(before, *measured(25.0, version="3", day=66))
    assert (change.kind, change.before, change.earlier_version) == ("slower", 50.0, "1")
    assert change.baseline == FIRST


def test_an_accepted_slow_down_is_the_new_baseline() -> None:
    before = [*measured(*[50.0] * 10), *measured(*[25.0] * 30, day=10)]
    assert changes([*before, accepted(40)], *measured(25.0, day=41)) == ()
    after = [*before, accepted(40), *measured(*[25.0] * 30, day=41)]
    assert changes(after, *measured(24.0, day=71)) == ()
    (again,) = changes(after, *measured(12.0, day=71))
    assert (again.kind, again.before) == ("slower", 25.0)


def test_speeds_that_recover_are_no_longer_reported() -> None:
    before = [*measured(*[50.0] * 10), *measured(*[25.0] * 3, day=10)]
    assert changes(before, *measured(50.0, day=13)) == ()


def test_the_baseline_rises_with_a_lasting_speed_up() -> None:
    before = [
        *measured(*[25.0] * 10),
        *measured(*[50.0] * 10, day=10),
        *measured(*[25.0] * 30, day=20),
    ]
    (change,) = changes(before, *measured(25.0, day=50))
    assert (change.kind, change.before) == ("slower", 50.0)


def test_a_speed_up_does_not_stay_news() -> None:
    before = [*measured(*[25.0] * 5), *measured(*[50.0] * 30, day=5)]
    assert changes(before, *measured(50.0, day=35)) == ()


def test_one_fast_day_is_no_baseline() -> None:
    before = [*measured(*[50.0] * 7, 200.0, *[50.0] * 30)]
    assert changes(before, *measured(50.0, day=40)) == ()


def test_the_speeds_of_the_check_speed_are_preferred() -> None:
    before = [*measured(*[50.0] * 5), *measured(*[50.0] * 5, check="full", day=5)]
    incidental, proper = measured(20.0, check="full", day=11), measured(50.0, day=11)
    assert changes(before, *incidental, *proper) == ()
    (change,) = changes(before, *incidental)
    assert (change.kind, change.check) == ("slower", "full")
    (change,) = changes(before, *measured(50.0, check="full", day=11), *measured(20.0, day=11))
    assert (change.kind, change.check) == ("slower", "speed")


def test_load_times_of_all_checks_are_compared() -> None:
    before = [
        *measured(*[50.0] * 5, load_seconds=10.0),
        *measured(*[50.0] * 5, check="full", day=5, load_seconds=10.0),
    ]
    now = [
        *measured(50.0, day=11, load_seconds=30.0),
        *measured(50.0, check="full", day=11, load_seconds=30.5),
    ]
    (change,) = changes(before, *now)
    assert (change.measure, change.sizes) == ("load_seconds", 2)


def test_the_checks_that_share_a_load_measure_it_once() -> None:
    shared = "full", "test_a", "test_b", "test_c"
    before = [each for check in shared for each in measured(50.0, check=check, load_seconds=1.0)]

    def now(seconds: float) -> list[Result]:
        more = {"day": 1, "load_seconds": seconds}
        return [each for check in shared for each in measured(50.0, check=check, **more)]

    assert changes(before, *now(1.4)) == (), "one value does not show what is usual"
    (change,) = changes(before, *now(3.0))
    assert (change.measure, change.sizes, change.history) == ("load_seconds", 1, 1)
