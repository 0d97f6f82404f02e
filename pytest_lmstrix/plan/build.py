"""Builds the plan on the controller: manifest, engines and registry in, the plan of the run out."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pytest_lmstrix.core.types import Host, Model
from pytest_lmstrix.engines.catalog import Engines, EngineUnavailable, version_of
from pytest_lmstrix.manifest.read import (
    Manifest,
    ManifestError,
    ManifestNotFound,
    whole_manifest,
)
from pytest_lmstrix.options import Settings
from pytest_lmstrix.plan.cached_results import ranges, settled, speeds, still_valid
from pytest_lmstrix.plan.durations import expected_seconds
from pytest_lmstrix.plan.hosts.listings import Found, Listings
from pytest_lmstrix.plan.hosts.needs import LeastMemory
from pytest_lmstrix.plan.hosts.placement import placed, without_host
from pytest_lmstrix.plan.memory import MemoryEstimator
from pytest_lmstrix.plan.plan import (
    Plan,
    PlannedModel,
    ordered,
    planned,
    planned_embedding,
    with_facts,
)
from pytest_lmstrix.registry.status import sort_values
from pytest_lmstrix.registry.store import Registry, RegistryError


def make_plan(
    manifest: Manifest,
    hosts: Sequence[Host],
    settings: Settings,
    engines: Engines,
    registry: Registry,
    *,
    machine: str,
) -> Plan:
    """Build the plan of a run on `hosts`; `registry` has the results of earlier runs.

    Raises:
        pytest.UsageError: An engine that is not available, or a registry that cannot be read.
    """
    _check_engines(manifest.models, settings, engines)
    embedding: list[PlannedModel] = []
    chosen: list[PlannedModel] = []
    estimator = MemoryEstimator(
        registry=settings.registry, folder=settings.models.parent, machine=machine
    )
    needs = LeastMemory(registry, estimator)
    listings = Listings(engines, hosts)
    try:
        for model in manifest.models:
            found = listings.look_up(model)
            known = with_facts(model, found.facts)
            if known.type == "embedding":
                sized = planned_embedding(known, settings.contexts, ())
                embedding.append(_placed(sized, found, needs))
            else:
                chosen.append(_placed(planned(known, settings.contexts, ()), found, needs))
        cached = _cached_results(registry, [*chosen, *embedding], engines, machine)
        chosen = [_with_duration(each, registry) for each in chosen]
        embedding = [_with_duration(each, registry) for each in embedding]
        values = sort_values(registry, [each.model for each in chosen])
        models_in_order = ordered(chosen, settings.sort, values, estimator.cached_bytes)
    except RegistryError as error:
        raise pytest.UsageError(str(error)) from None
    return Plan(
        run=uuid.uuid4().hex[:12],
        seed=secrets.randbits(32),
        models=models_in_order,
        hosts=tuple(hosts),
        embedding=tuple(embedding),
        **cached,
    )


def _placed(planned: PlannedModel, found: Found, needs: LeastMemory) -> PlannedModel:
    """Return `planned` with the hosts where it may be tested, of those that were found."""
    if planned.model.hosts and not found.asked:
        return without_host(planned, found.of_engine)
    hosts = found.having or (found.asked if planned.model.hosts else ())
    planned = replace(planned, hosts=tuple(host.address for host in hosts))
    return placed(planned, hosts or found.asked, partial(needs.of, planned))


def read_models(settings: Settings) -> Manifest:
    """Return the manifest of a run.

    Raises:
        pytest.UsageError: There is none, or it has a mistake.
    """
    try:
        return whole_manifest(settings.models, engine=settings.engine)
    except ManifestError as error:
        raise manifest_usage_error(error, settings.models) from None


def manifest_usage_error(error: ManifestError, path: Path) -> pytest.UsageError:
    """Return the mistakes in the manifest at `path`, or the way to create it."""
    if isinstance(error, ManifestNotFound):
        return pytest.UsageError(
            f"{error}; `pytest --lmstrix-scan` creates one with the models of your engines"
        )
    return pytest.UsageError(str(error).replace(f"{path}:", f"{path.name}:"))


def _check_engines(models: Iterable[Model], settings: Settings, engines: Engines) -> None:
    try:
        for name in dict.fromkeys(model.engine for model in models):
            engines.require(name)
    except EngineUnavailable as error:
        raise pytest.UsageError(f"{settings.models.name}: {error}") from None


def _with_duration(planned: PlannedModel, registry: Registry) -> PlannedModel:
    known = registry.known(planned.model.id)
    return replace(planned, seconds=expected_seconds(planned, known))


def _cached_results(
    registry: Registry, chosen: Iterable[PlannedModel], engines: Engines, machine: str
) -> dict[str, Any]:
    """Return the fields of `Plan` that come from earlier runs."""
    fields: dict[str, Any] = {"known": {}, "ranges": {}, "speeds": {}}
    for each in chosen:
        known = registry.known(each.model.id)
        if known:
            version = version_of(engines.get(each.model.engine, each.hosts))
            holding = still_valid(known, each.model, engine_version=version, machine=machine)
            fields["known"] |= settled(holding, each)
            fields["ranges"] |= ranges(holding, each.model)
            fields["speeds"] |= speeds(holding, each.model)
    return fields
