"""The memory of models at each context length and KV cache type, and whether it is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.memory import MachineMemory, Needs
from pytest_lmstrix.core.types import KvCacheType, Model
from pytest_lmstrix.engines.llamacpp.binary import Binary
from pytest_lmstrix.options import Settings
from pytest_lmstrix.plan.lmstudio_models import LmStudioModels
from pytest_lmstrix.plan.memory import MemoryEstimator, largest_size
from pytest_lmstrix.plan.plan import planned
from pytest_lmstrix.system.machine_id import machine_id
from pytest_lmstrix.weights.fetch import is_header
from pytest_lmstrix.weights.preflight import preflight

_ESTIMATED = ("llamacpp", "llama-server", "lmstudio")
_DEFAULT_TYPES: tuple[KvCacheType, ...] = ("f16", "q8_0")
_NO_ESTIMATE = {
    "ollama": "not reported: Ollama has no estimate of a load before it",
    "openai": "not reported: an OpenAI-compatible server has no estimate of a load",
}


class FitRow(Struct, frozen=True, kw_only=True):
    """A model at one context length with one type of KV cache."""

    model: Model
    context_length: int | None = None
    kv_cache_type: KvCacheType | None = None
    needs: Needs = ()
    fits: bool | None = None
    source: Literal["dry-run", "engine", "none"] = "none"
    largest: bool = False
    """No larger context fits."""
    from_header: bool = False
    """The weights are elsewhere; only the header of their file is here."""
    reason: str = ""
    """Why nothing is known."""


class _Estimate(Struct, frozen=True):
    needs: Needs
    spare_bytes: int
    """Negative if the memory does not suffice."""


_Estimator = Callable[[Model, int], _Estimate]
"""Estimates a model with its load settings at a context length; raises Failure or OSError."""


class Fitter:
    """Makes the rows of a model; several threads use it."""

    def __init__(
        self,
        settings: Settings,
        machine: MachineMemory,
        studio: LmStudioModels,
        registered: Collection[str],
        program: Binary | None = None,
    ) -> None:
        """`registered` are the names of engines that take the place of built-in ones.

        `program` estimates the models of the engine `llama-server`.
        """
        self._settings = settings
        self._machine = machine
        self._studio = studio
        self._registered = registered
        self.stopped = threading.Event()
        """Set to estimate no more."""
        self._estimator = MemoryEstimator(
            registry=settings.registry,
            folder=settings.models.parent,
            machine=machine_id(),
            program=program,
        )

    def rows(self, model: Model) -> list[FitRow]:
        """Return the rows of `model`, largest contexts last; one with the reason if it fails."""
        try:
            path = self._path(model)
            if path is None:
                limit = model.context_limit or self._studio.context_limit(model)
                row = FitRow(model=model, source="engine")
                return list(self._rows(row, limit, self._by_lm_studio))
            checked = preflight(path)
            if checked.verdict is not None:
                raise ValueError(checked.reason)
            if checked.kind == "embedding":
                raise ValueError("an embedding model, whose sizes are not tested")
        except (Failure, OSError, ValueError) as error:
            return [FitRow(model=model, reason=_reason(error))]
        row = FitRow(model=model, source="dry-run", from_header=is_header(path))
        limit = model.context_limit or checked.context_length
        return list(self._rows(row, limit, lambda model, size: self._by_file(path, model, size)))

    def _path(self, model: Model) -> Path | None:
        """Return the file to estimate `model` by; `None` if LM Studio has to estimate it."""
        if model.engine in self._registered or model.engine not in _ESTIMATED:
            own = None if model.engine in self._registered else _NO_ESTIMATE.get(model.engine)
            raise ValueError(own or f"not reported: engine '{model.engine}' has no estimate")
        if model.engine == "lmstudio":
            return self._studio.file(model)
        return self._estimator.file(model, fetch=True)

    def _by_file(self, path: Path, model: Model, size: int) -> _Estimate:
        needs = self._estimator.estimate(path, model.load, size, engine=model.engine)
        return _Estimate(needs, self._machine.spare_bytes(needs))

    def _by_lm_studio(self, model: Model, size: int) -> _Estimate:
        usage = self._studio.estimate(model, size)
        return _Estimate(usage.needs, 1 if usage.fits else -1)

    def _rows(self, row: FitRow, limit: int | None, estimator: _Estimator) -> Iterator[FitRow]:
        own = row.model.load.kv_cache_type
        if own is not None and row.model.variant_of is not None:
            types: tuple[KvCacheType, ...] = (own,)
        elif own is None or own in _DEFAULT_TYPES:
            types = _DEFAULT_TYPES
        else:
            types = (own, *_DEFAULT_TYPES)
        for kind in types:
            yield from self._rows_of_type(replace(row, kv_cache_type=kind), limit, estimator)

    def _rows_of_type(
        self, row: FitRow, limit: int | None, estimator: _Estimator
    ) -> Iterator[FitRow]:
        load = replace(row.model.load, kv_cache_type=row.kv_cache_type)
        model = replace(row.model, load=load)
        known: dict[int, _Estimate] = {}
        sizes = planned(replace(model, context_limit=limit), self._settings.contexts, ())
        failed: list[FitRow] = []

        def spare_bytes(size: int) -> int:
            if self.stopped.is_set():
                raise CancelledError
            known[size] = estimator(model, size)
            return known[size].spare_bytes

        for size in sizes.context_lengths:
            try:
                spare_bytes(size)
            except (Failure, OSError) as error:
                failed.append(_failed(replace(row, context_length=size), error))
                if not known:
                    break  # the others would fail, too
        largest = None
        if known:
            spare = {size: found.spare_bytes for size, found in known.items()}
            try:
                largest = largest_size(spare_bytes, limit=limit or max(known), known=spare)
            except (Failure, OSError) as error:
                failed.append(_failed(row, error))
        shown = {*sizes.context_lengths, largest} & set(known)
        for size in sorted(size for size in shown if size is not None):
            yield replace(
                row,
                context_length=size,
                needs=known[size].needs,
                fits=known[size].spare_bytes >= 0,
                largest=size == largest,
            )
        yield from failed


def _failed(row: FitRow, error: Exception) -> FitRow:
    return replace(row, source="none", reason=_reason(error))


def _reason(error: Exception) -> str:
    return " ".join((error.text if isinstance(error, Failure) else str(error)).split())
