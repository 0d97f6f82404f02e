"""Proportions of passed samples: intervals, and drops that are more than chance."""

from __future__ import annotations

from math import comb

import pytest

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.registry.history.proportions import (
    CHANCE,
    Proportion,
    chance_of_drop,
    is_worse,
)
from pytest_lmstrix.registry.regressions import History, compare
from tests.registry.results import a_result


@pytest.mark.parametrize(
    ("passed", "samples", "least", "most"),
    [(8, 10, 0.490, 0.943), (10, 10, 0.722, 1.0), (0, 10, 0.0, 0.278), (81, 263, 0.255, 0.366)],
)
def test_the_interval_is_wilsons(passed: int, samples: int, least: float, most: float) -> None:
    # The last is an example of R. G. Newcombe, Statistics in Medicine 17 (1998), table I.
    found = Proportion(passed, samples).interval()
    assert found == (pytest.approx(least, abs=5e-4), pytest.approx(most, abs=5e-4))


def test_the_chance_is_fishers() -> None:
    # Fisher's own tea tasting: 3 of 4 against 1 of 4 is 17 / 70.
    assert chance_of_drop(Proportion(3, 4), Proportion(1, 4)) == pytest.approx(17 / 70)
    assert chance_of_drop(Proportion(10, 10), Proportion(6, 10)) == pytest.approx(
        comb(10, 4) * 1 / comb(20, 4)
    )
    assert chance_of_drop(Proportion(5, 10), Proportion(10, 10)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ((10, 10), (8, 10), False),
        ((10, 10), (6, 10), True),
        ((8, 10), (7, 10), False),
        ((50, 50), (7, 10), True),
        ((100, 100), (9, 10), False),
        ((3, 3), (0, 3), True),
        ((2, 2), (0, 2), False),
        ((5, 10), (10, 10), False),
    ],
)
def test_a_drop_counts_if_it_is_more_than_chance(
    before: tuple[int, int], after: tuple[int, int], worse: bool
) -> None:
    assert is_worse(Proportion(*before), Proportion(*after)) is worse


@pytest.mark.parametrize("passed", range(11))
def test_equal_samples_are_seldom_a_drop(passed: int) -> None:
    """Of all pairs of ten samples with the same true share, at most 5 % count as a drop."""
    share = passed / 10

    def chance(k: int) -> float:
        return comb(10, k) * share**k * (1 - share) ** (10 - k)

    alarms = sum(
        chance(one) * chance(other)
        for one in range(11)
        for other in range(11)
        if is_worse(Proportion(one, 10), Proportion(other, 10))
    )
    assert alarms <= CHANCE


def sampled(run: int, passed: int) -> Result:
    return a_result(
        verdict="ok" if passed >= 8 else "wrong_answer",
        run=f"r{run}", check="test_json", samples=10, passed_samples=passed, required_samples=8,
    )  # fmt: skip


def changes(*runs: int) -> list[tuple[str, str, object, object, bool]]:
    """The changes of the last of the runs, each with so many of 10 samples passed."""
    history = History()
    for number, passed in enumerate(runs[:-1]):
        history.add(sampled(number, passed))
    found = compare([sampled(len(runs), runs[-1])], history)
    return [(c.kind, c.measure, c.before, c.after, c.is_regression) for c in found
            if c.measure != "verified_context"]  # fmt: skip


def test_a_failure_within_chance_is_no_regression() -> None:
    assert changes(8, 7) == [("changed", "verdict", "ok", "wrong_answer", False)]
    assert changes(10, 8) == []


def test_a_real_drop_is_a_regression() -> None:
    dropped = [("less_reliable", "passed_samples", "10 of 10", "5 of 10", True)]
    assert changes(10, 5) == dropped


def test_failures_add_up_to_a_regression() -> None:
    assert changes(10, 10, 7)[0][:2] == ("less_reliable", "passed_samples")
    assert changes(9, 9, 9, 7)[0][:2] == ("changed", "verdict")
    assert changes(9, 9, 9, 7, 6, 6) == [
        ("less_reliable", "passed_samples", "27 of 30", "19 of 30", True)
    ]


def test_a_drop_that_still_passes_is_a_regression() -> None:
    assert changes(10, 10, 10, 10, 8) == [
        ("less_reliable", "passed_samples", "40 of 40", "8 of 10", True)
    ]


def test_a_test_that_passes_again_works_again() -> None:
    assert changes(10, 3, 9) == [("newly_working", "verdict", "wrong_answer", "ok", False)]
