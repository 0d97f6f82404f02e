"""Statuses of the models of a manifest from the registry alone, without asking an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Literal

from msgspec import Struct

from pytest_lmstrix.core.types import Model, fingerprint, settings_of
from pytest_lmstrix.core.verdicts import Status
from pytest_lmstrix.registry.history.since import Since, most_relevant
from pytest_lmstrix.registry.store import ModelStatus, Registry
from pytest_lmstrix.system.machine_id import machine_id

DisplayedStatus = Status | Literal["embedding", "imported"]
"""The status in the registry, or of models without results of their own."""


def status_of(registry: Registry, model: Model) -> ModelStatus:
    """Return the status of `model` with its own engine, load settings and weights.

    Raises:
        RegistryError: The registry cannot be read.
    """
    settings = settings_of(model)
    status = registry.status(model.id, engine=model.engine, settings=settings)
    if status and model.sha256 and (status.fingerprint or "").startswith("sha256:"):
        weights = fingerprint(sha256=model.sha256, size_bytes=None, path=None)
        status = registry.status(
            model.id, engine=model.engine, settings=settings, fingerprint=weights
        )
    return status or ModelStatus(model=model.id, status="untested")


def since_of(registry: Registry, model: Model, fingerprint: str | None) -> tuple[Since, ...]:
    """Return since when the checks of `model` work or fail, with its engine and load settings.

    `fingerprint` is that of `status_of`; results of other weights are left out.
    """
    return tuple(
        since
        for since in registry.since(model.id)
        if (since.engine, since.settings) == (model.engine, settings_of(model))
        and since.fingerprint == fingerprint
    )


def shown_since(registry: Registry, model: Model, known: ModelStatus) -> Since | None:
    """Return the line of time to show of `model`, of this machine if it has been tested here."""
    return most_relevant(since_of(registry, model, known.fingerprint), machine_id())


def display_status(model: Model, known: ModelStatus) -> DisplayedStatus:
    """Return the status in the registry.

    It is `embedding` for models whose sizes are not tested, and `imported` for untested models with
    results of another tool.
    """
    if model.type == "embedding":
        return "embedding"
    return "imported" if known.status == "untested" and known.imported else known.status


class Variant(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A variant of a model, and what is known of it at its largest size that works."""

    id: str
    name: str
    """The id without that of the model, such as `q8_0`."""
    status: DisplayedStatus
    estimated_memory_bytes: int | None = None
    peak_memory_bytes: int | None = None
    verified_context: int | None = None
    ttft_seconds: float | None = None
    decode_tokens_per_second: float | None = None


class VariantComparison(Struct, frozen=True, kw_only=True):
    """The variants of one model by load settings, in the order of their ids."""

    model: str
    variants: tuple[Variant, ...]


def compare_variants(models: Iterable[tuple[Model, ModelStatus]]) -> tuple[VariantComparison, ...]:
    """Compare the variants of each model that has several; pure."""
    found: dict[str, list[Variant]] = {}
    for model, known in models:
        if model.variant_of is not None:
            found.setdefault(model.variant_of, []).append(_variant(model, known))
    return tuple(
        VariantComparison(model=name, variants=tuple(sorted(each, key=lambda one: one.id)))
        for name, each in found.items()
        if len(each) > 1
    )


def _variant(model: Model, known: ModelStatus) -> Variant:
    return Variant(
        id=model.id,
        name=model.id.removeprefix(f"{model.variant_of}+"),
        status=display_status(model, known),
        estimated_memory_bytes=known.estimated_memory_bytes,
        peak_memory_bytes=known.peak_memory_bytes,
        verified_context=known.verified_context,
        ttft_seconds=known.ttft_seconds,
        decode_tokens_per_second=known.decode_tokens_per_second,
    )


def sort_values(registry: Registry, models: Iterable[Model]) -> dict[str, Callable[[str], Any]]:
    """Return for `plan.ordered` the sort keys whose values come from the registry.

    The registry is read when the first value is requested.
    """
    by_id = {model.id: model for model in models}

    @cache
    def status(model_id: str) -> ModelStatus:
        return status_of(registry, by_id[model_id])

    return {
        "ctx": lambda model_id: status(model_id).verified_context,
        "estimate": lambda model_id: status(model_id).estimated_memory_bytes,
        "ttft": lambda model_id: status(model_id).ttft_seconds,
        "tps": lambda model_id: status(model_id).decode_tokens_per_second,
        "status": lambda model_id: display_status(by_id[model_id], status(model_id)),
        "tested": lambda model_id: status(model_id).last_tested,
    }
