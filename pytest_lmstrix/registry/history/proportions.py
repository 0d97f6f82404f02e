"""Passed samples as proportions: their intervals, and whether one is worse. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import comb, sqrt
from typing import NamedTuple

from pytest_lmstrix.core.types import Result

Z = 1.959964
"""Standard deviations of a normal distribution for a confidence of 95 %."""
CHANCE = 0.05
"""A difference that chance makes at most so often is a real one."""


class Proportion(NamedTuple):
    """How many of some samples passed."""

    passed: int
    samples: int

    def interval(self) -> tuple[float, float]:
        """Return the share of passes with a confidence of 95 %, by Wilson's score interval.

        Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927).
        """
        n, share = self.samples, self.passed / self.samples
        middle = share + Z * Z / (2 * n)
        reach = Z * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
        scale = 1 + Z * Z / n
        return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)

    def __str__(self) -> str:
        return f"{self.passed} of {self.samples}"


def chance_of_drop(before: Proportion, after: Proportion) -> float:
    """Return how often chance alone makes `after` as bad as it is, by Fisher's exact test.

    It is one-sided: 1.0 or nearly so where `after` is no worse than `before`.
    """
    passed, samples = before.passed + after.passed, before.samples + after.samples
    ways = sum(
        comb(passed, k) * comb(samples - passed, after.samples - k)
        for k in range(max(0, after.samples - (samples - passed)), after.passed + 1)
    )
    return ways / comb(samples, after.samples)


def is_worse(before: Proportion, after: Proportion) -> bool:
    """Whether fewer samples pass than before, by more than chance."""
    return chance_of_drop(before, after) <= CHANCE


def proportion_of(result: Result) -> Proportion | None:
    """Return the samples of a result; `None` for one without."""
    if not result.samples or result.passed_samples is None:
        return None
    return Proportion(min(result.passed_samples, result.samples), result.samples)


def pooled(results: Iterable[Result]) -> Proportion | None:
    """Return the samples of several results together; `None` if there are none."""
    each = [found for result in results if (found := proportion_of(result)) is not None]
    if not each:
        return None
    return Proportion(sum(one.passed for one in each), sum(one.samples for one in each))


def usual_and_recent(
    earlier: Sequence[Result], new: Result
) -> tuple[Proportion | None, Proportion | None]:
    """Return the samples of the results that passed, and of the failures since the last of them.

    `new` is the last of the failures, if it is one; `earlier` are alike and in order.
    """
    passed = [each for each in earlier if each.verdict.evidence == "good"]
    if new.verdict.evidence == "good":
        return pooled(passed), proportion_of(new)
    since: list[Result] = []
    for each in reversed(earlier):
        if each.verdict.evidence == "good":
            break
        since.append(each)
    return pooled(passed), pooled([*since, new])
