"""The speeds that a model had first: what the newest ones are measured by in the long run. Pure.

The newest results alone would make a slow-down usual after some runs. A baseline is a block of
consecutive results, of any engine version: the first block, or the first that was clearly faster.
An acceptance starts a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import median
from typing import NamedTuple

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.system.addresses import remote_host

BLOCK = 5
"""Results of a block."""
FASTER = 1.25
"""A block is clearly faster from this ratio on."""
_RATES = ("decode_tokens_per_second", "prefill_tokens_per_second")
_MEASURES = (*_RATES, "ttft_seconds")


class Measured(NamedTuple):
    """The speeds of one earlier result."""

    at: datetime
    engine_version: str | None
    decode_tokens_per_second: float | None
    prefill_tokens_per_second: float | None
    ttft_seconds: float | None


class Baselines:
    """The baselines of all models; results are added oldest first."""

    def __init__(self) -> None:
        self._models: dict[str, dict[tuple[object, ...], _Baseline]] = {}

    def add(self, result: Result) -> None:
        """Add the next result; only passed ones count."""
        if result.verdict.evidence == "good":
            baselines = self._models.setdefault(result.model, {})
            baselines.setdefault(_key(result), _Baseline()).add(result)

    def forget(self, model: str) -> None:
        """Start again with the results of `model` from now on."""
        self._models.pop(model, None)

    def of(self, result: Result, measure: str) -> Sequence[Measured]:
        """Return the baseline of the check and size of `result`, oldest first."""
        baseline = self._models.get(result.model, {}).get(_key(result))
        return baseline.of(measure) if baseline is not None else ()


def _key(result: Result) -> tuple[object, ...]:
    return (result.engine, remote_host(result.host), result.machine, result.fingerprint,
            result.settings, result.check, result.check_version, result.context_length)  # fmt: skip


class _Baseline:
    """The baseline of one check at one size."""

    __slots__ = ("_best", "_newest")

    def __init__(self) -> None:
        self._newest: list[Measured] = []
        """The block that is not complete yet."""
        self._best: dict[str, tuple[float, tuple[Measured, ...]]] = {}
        """Measure -> its median, and the block."""

    def add(self, result: Result) -> None:
        self._newest.append(
            Measured(
                result.at,
                result.engine_version,
                result.decode_tokens_per_second,
                result.prefill_tokens_per_second,
                result.ttft_seconds,
            )
        )
        if len(self._newest) == BLOCK:
            block, self._newest = tuple(self._newest), []
            for measure in _MEASURES:
                self._take(measure, block)

    def _take(self, measure: str, block: tuple[Measured, ...]) -> None:
        values = [value for each in block if (value := getattr(each, measure))]
        if not values:
            return
        new = median(values)
        best = self._best.get(measure)
        if best is None or (
            new > FASTER * best[0] if measure in _RATES else FASTER * new < best[0]
        ):
            self._best[measure] = new, block

    def of(self, measure: str) -> Sequence[Measured]:
        if measure not in _MEASURES:
            return ()
        best = self._best.get(measure)
        return best[1] if best is not None else self._newest
