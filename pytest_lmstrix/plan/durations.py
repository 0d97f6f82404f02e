"""How long the cases of a model are expected to take. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from pytest_lmstrix.plan.plan import PlannedModel
from pytest_lmstrix.registry.known import Known

LOAD_BYTES_PER_SECOND = 500_000_000
"""Reading of weights from a disk, where nothing was measured."""
TOKENS_PER_SECOND = 5_000
"""The share of a load that grows with the context, likewise."""
OVERHEAD_SECONDS = 2.0
"""Of each case: questions, answers and the unload."""


def expected_seconds(planned: PlannedModel, known: Iterable[Known]) -> float:
    """Return the seconds for all sizes of a model: as in earlier runs, else by its size.

    A size without a result takes as long as the median of the others.
    """
    took: dict[int, float] = {}
    for result in known:  # newest first
        if result.load_seconds is not None:
            seconds = result.load_seconds + (result.ttft_seconds or 0.0)
            took.setdefault(result.context_length, seconds)
    usual = median(took.values()) if took else None
    total = 0.0
    for size in planned.context_lengths:
        if planned.why_unfit(size) is not None:
            break  # nor are larger ones tested
        load = (planned.model.size_bytes or 0) / LOAD_BYTES_PER_SECOND + size / TOKENS_PER_SECOND
        total += OVERHEAD_SECONDS + took.get(size, load if usual is None else usual)
    return total
