"""A robust test of whether speeds changed: medians and median absolute deviations. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from statistics import median
from typing import NamedTuple, Protocol

from pytest_lmstrix.core.types import Result

STANDARD_DEVIATION = 1.4826
"""In median absolute deviations of a normal distribution."""
DEVIATIONS = 3
"""A change is larger than this many standard deviations of the comparison."""
ASSUMED_NOISE = 0.1
"""Relative standard deviation as long as too few values show it."""
LEAST_NOISE = 0.02
"""Speeds that seem to deviate less are not trusted to."""
_LEAST_SHOWN = 3
"""Values from which a deviation is computed."""


class Past(Protocol):
    """An earlier measurement; its values are looked up by name."""

    @property
    def engine_version(self) -> str | None:
        """The version that it was measured with."""


class Sample(NamedTuple):
    """One result of this run and the earlier values of the same check and size."""

    result: Result
    value: float
    usual: tuple[float, ...]
    """Positive, at least one."""


def preferred(
    samples: Sequence[tuple[Sample, str | None]],
) -> Sequence[tuple[Sample, str | None]]:
    """Return the samples, each with its version, of the check `speed` where there are any.

    The speeds of other checks are incidental: their prompts and replies differ in length.
    """
    return [each for each in samples if each[0].result.check == "speed"] or samples


def significant_ratio(
    samples: Sequence[Sample], least_change: float, least_difference: float = 0
) -> float | None:
    """Return the median ratio of the samples to their usual values, if it is a real change.

    It is, if it is larger than `least_change` (0.25 is 25 %), than `least_difference` in the unit
    of the values, and than the noise of the earlier values and of the ratios.
    """
    if not samples:
        return None
    logs = [log(sample.value / median(sample.usual)) for sample in samples]
    change = median(logs)
    difference = median(sample.value - median(sample.usual) for sample in samples)
    history = sum(len(sample.usual) for sample in samples)
    error = _noise(samples, logs) * sqrt(1 / len(samples) + 1 / history)
    ratio = exp(change)
    if abs(ratio - 1) <= least_change or abs(difference) <= least_difference:
        return None
    return ratio if abs(change) > DEVIATIONS * error else None


def _noise(samples: Sequence[Sample], logs: Sequence[float]) -> float:
    """Return the relative standard deviation of one value."""
    shown = []
    repeated = [sample.usual for sample in samples if len(sample.usual) >= _LEAST_SHOWN]
    if repeated:
        deviations = [abs(log(value / median(values))) for values in repeated for value in values]
        shown.append(median(deviations))
    if len(logs) >= _LEAST_SHOWN:
        usual = median(logs)
        shown.append(median(abs(each - usual) for each in logs))
    if not shown:
        return ASSUMED_NOISE
    return max(LEAST_NOISE, STANDARD_DEVIATION * max(shown))
