"""The least memory that a model needs, by what is known before a load."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_lmstrix.core.types import settings_of
from pytest_lmstrix.plan.memory import MemoryEstimator
from pytest_lmstrix.plan.plan import PlannedModel
from pytest_lmstrix.registry.known import Known
from pytest_lmstrix.registry.store import Registry


class LeastMemory:
    """Knows sizes of weights, earlier results, and cached estimates of `--lmstrix-fit`."""

    def __init__(self, registry: Registry, estimator: MemoryEstimator) -> None:
        self._registry = registry
        self._estimator = estimator

    def of(self, planned: PlannedModel, context_length: int) -> int | None:
        """Return the bytes that `planned` needs at least, `None` if nothing is known."""
        model = planned.model
        known = (
            each
            for each in self._registry.known(model.id)
            if (each.engine, each.settings) == (model.engine, settings_of(model))
            and each.fingerprint in (None, model.fingerprint)
        )
        estimate = self._estimator.cached_bytes_at(model, context_length)
        return max(filter(None, (model.size_bytes, estimate, used(known, context_length))),
                   default=None)  # fmt: skip


def used(known: Iterable[Known], context_length: int) -> int | None:
    """Return the most memory that loads of up to `context_length` tokens have taken."""
    return max(
        (
            taken
            for each in known
            if each.context_length <= context_length
            and (taken := each.peak_memory_bytes or each.estimated_memory_bytes) is not None
        ),
        default=None,
    )
