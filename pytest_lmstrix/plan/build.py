"""Builds the plan on the controller: manifest, engines and registry in, the plan of the run out."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from pytest_lmstrix.core.types import Model, ModelFacts
from pytest_lmstrix.engines.catalog import (
    Engines,
    EngineUnavailable,
    facts_of,
    hosts_for,
    version_of,
)
from pytest_lmstrix.manifest.read import ManifestError, ManifestNotFound, read_manifest
from pytest_lmstrix.options import Settings
from pytest_lmstrix.plan.cached_results import ranges, settled, speeds, still_valid
from pytest_lmstrix.plan.durations import expected_seconds
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


def make_plan(settings: Settings, engines: Engines, *, machine: str) -> Plan:
    """Build the plan of this run.

    Raises:
        pytest.UsageError: A mistake in the manifest, or a registry that cannot be read.
    """
    models = _read_models(settings, engines)
    embedding: list[PlannedModel] = []
    chosen: list[PlannedModel] = []
    listings = _Listings(engines, settings.hosts)
    for model in models:
        facts, hosts = listings.look_up(model)
        known = with_facts(model, facts)
        if known.type == "embedding":
            embedding.append(planned_embedding(known, settings.contexts, hosts))
        else:
            chosen.append(planned(known, settings.contexts, hosts))
    registry = Registry(settings.registry)
    try:
        cached = _cached_results(registry, [*chosen, *embedding], engines, machine)
        chosen = [_with_duration(each, registry) for each in chosen]
        embedding = [_with_duration(each, registry) for each in embedding]
        values = sort_values(registry, [each.model for each in chosen])
        estimator = MemoryEstimator(
            registry=settings.registry, folder=settings.models.parent, machine=machine
        )
        models_in_order = ordered(chosen, settings.sort, values, estimator.cached_bytes)
    except RegistryError as error:
        raise pytest.UsageError(str(error)) from None
    return Plan(
        run=uuid.uuid4().hex[:12],
        seed=secrets.randbits(32),
        models=models_in_order,
        embedding=tuple(embedding),
        **cached,
    )


def _read_models(settings: Settings, engines: Engines) -> Sequence[Model]:
    try:
        models = read_manifest(settings.models, engine=settings.engine)
        for name in dict.fromkeys(model.engine for model in models):
            engines.require(name)
    except ManifestNotFound as error:
        raise pytest.UsageError(
            f"{error}; `pytest --lmstrix-scan` creates one with the models of your engines"
        ) from None
    except EngineUnavailable as error:
        raise pytest.UsageError(f"{settings.models.name}: {error}") from None
    except ManifestError as error:
        text = str(error).replace(f"{settings.models}:", f"{settings.models.name}:")
        raise pytest.UsageError(text) from None
    return models


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


# Third-party engines may raise anything, even what ends a program.
_ENGINE_ERRORS = (Exception, SystemExit)


class _Listings:
    """The listings of the engines; those of hosts are kept, an unreachable one lists nothing."""

    def __init__(self, engines: Engines, hosts: tuple[str, ...]) -> None:
        self._engines = engines
        self._hosts = hosts

    def look_up(self, model: Model) -> tuple[ModelFacts | None, list[str]]:
        """Return the facts of `model`, and those of its engine's hosts that have it."""
        hosts = hosts_for(model, self._hosts)
        if not hosts:
            try:
                return facts_of(self._engines.get(model.engine), model), []
            except _ENGINE_ERRORS:
                return None, []  # the load will fail and report it
        if model.url is not None and len(hosts) == 1:
            return self._facts(model, hosts[0]), list(hosts)  # no other host will do
        found = {host: facts for host in hosts if (facts := self._facts(model, host)) is not None}
        return next(iter(found.values()), None), list(found)

    def _facts(self, model: Model, host: str) -> ModelFacts | None:
        try:
            return facts_of(self._engines.get(model.engine, [host]), model)
        except _ENGINE_ERRORS:
            return None
