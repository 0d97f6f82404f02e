"""A run that is about models: reads, plans, and registers the plugins that do the rest."""

from __future__ import annotations

import hashlib
import platform
import uuid
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from pytest_lmstrix import fixtures, leases, weights
from pytest_lmstrix.bench import Bench
from pytest_lmstrix.collection import Collection
from pytest_lmstrix.engines import Engines, EngineUnavailable, facts_of
from pytest_lmstrix.engines.base import Engine
from pytest_lmstrix.judging import Judge
from pytest_lmstrix.manifest import ManifestError, ManifestNotFound, read_manifest
from pytest_lmstrix.options import Settings, read_settings
from pytest_lmstrix.outcomes import Outcomes
from pytest_lmstrix.plan import Plan, PlannedModel, ordered, planned, with_facts
from pytest_lmstrix.reporting.live import Live
from pytest_lmstrix.reporting.session import Reporting
from pytest_lmstrix.scheduling import Scheduling, plan_from_controller, worker_number
from pytest_lmstrix.signals import Signals
from pytest_lmstrix.types import Model, ModelFacts
from pytest_lmstrix.verdicts import Failure, Verdict


def start(config: pytest.Config) -> None:
    """Make the plan, or take it from the controller, and register everything that acts on it.

    Raises:
        pytest.UsageError: A mistake in an option or in the manifest.
    """
    settings = read_settings(config)
    live = Live(config)
    engines = _engines(config, settings, live)
    register = config.pluginmanager.register
    plan = plan_from_controller(config)
    if plan is None:
        plan = _plan(settings, engines, live)
        config.option.lmstrix_models = str(settings.models)
        _collect_manifest(config, settings)
        register(Scheduling(plan), "lmstrix-scheduling")
        register(Reporting(config, settings, plan), "lmstrix-reporting")
    for tag in {tag for each in plan.models for tag in each.model.tags}:
        config.addinivalue_line("markers", f"{tag}: models that the manifest tags so")
    bench = _bench(settings, engines, plan, live)
    judge = Judge(bench, run=plan.run, machine=machine())
    config.stash[fixtures.judge_key] = judge
    register(fixtures, "lmstrix-fixtures")
    register(Collection(settings, plan), "lmstrix-collection")
    register(Outcomes(bench, judge), "lmstrix-outcomes")
    register(Signals(), "lmstrix-signals")
    config.add_cleanup(engines.close)
    config.add_cleanup(bench.unload)


def machine() -> str:
    """Identifies this machine without naming it: results are compared with their like."""
    facts = f"{uuid.getnode()} {platform.node()} {platform.machine()} {platform.system()}"
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


def _engines(config: pytest.Config, settings: Settings, live: Live) -> Engines:
    registered: list[Engine] = []
    for answer in config.hook.pytest_lmstrix_engines(config=config):
        registered.extend(answer if isinstance(answer, Iterable) else [answer])
    hosts = settings.hosts
    return Engines(
        registered,
        home=hosts[worker_number(config) % len(hosts)] if hosts else None,
        load_timeout=settings.load_timeout,
        reply_timeout=settings.reply_timeout,
        weights=partial(_weights, settings, live),
        owner=leases.owner_token(),
    )


def _weights(settings: Settings, live: Live, model: Model) -> Path:
    if model.source is None:
        raise Failure(
            f"{settings.models.name}: model '{model.id}' has no source, so engine '{model.engine}'"
            " does not know where its weights are",
            verdict=Verdict.MODEL_NOT_FOUND,
        )
    with live.downloading(model.id) as progress:
        return weights.fetch(model.source, sha256=model.sha256, base_dir=settings.models.parent,
                             progress=progress)  # fmt: skip


def _bench(settings: Settings, engines: Engines, plan: Plan, live: Live) -> Bench:
    hosts = {each.model.id: each.hosts for each in plan.models}

    def sweep(engine: Engine) -> None:
        """Unload what runs that are dead have left behind."""
        of_dead_owners = getattr(engine, "sweep", None)
        if of_dead_owners is not None:
            of_dead_owners(leases.owner_is_dead)

    return Bench(
        lambda model: engines.get(model.engine, hosts.get(model.id, ())),
        host_lock=lambda host: leases.host_lock(
            host, on_wait=lambda holder: live.waiting(host, holder)
        ),
        watch=live,
        prepare=sweep,
        cooldown=settings.cooldown,
    )


def _plan(settings: Settings, engines: Engines, live: Live) -> Plan:
    try:
        models = read_manifest(settings.models, engine=settings.engine)
        for name in dict.fromkeys(model.engine for model in models):
            engines.require(name)
    except ManifestNotFound as error:
        raise pytest.UsageError(
            f"{error}; `pytest --lmstrix-scan` makes one from what your engines have"
        ) from None
    except EngineUnavailable as error:
        raise pytest.UsageError(f"{settings.models.name}: {error}") from None
    except ManifestError as error:
        text = str(error).replace(f"{settings.models}:", f"{settings.models.name}:")
        raise pytest.UsageError(text) from None
    embedding: list[str] = []
    chosen: list[PlannedModel] = []
    listings = Listings(engines, settings)
    for model in models:
        facts, hosts = listings.look_up(model)
        known = with_facts(model, facts)
        if known.type == "embedding":
            embedding.append(known.id)
        else:
            chosen.append(planned(known, settings.contexts, hosts))
    return Plan(
        run=uuid.uuid4().hex[:12],
        models=ordered(chosen, settings.sort, {}),
        embedding=tuple(embedding),
    )


class Listings:
    """What the engines say they have; each host is asked once, and one that is away has nothing."""

    def __init__(self, engines: Engines, settings: Settings) -> None:
        self._engines = engines
        self._hosts = settings.hosts
        self._listed: dict[str, dict[str, ModelFacts]] = {}

    def look_up(self, model: Model) -> tuple[ModelFacts | None, list[str]]:
        """What is known of `model`, and which LM Studio hosts have it."""
        if model.engine != "lmstudio" or not self._hosts:
            try:
                return facts_of(self._engines.get(model.engine), model), []
            except Failure:
                return None, []  # the load will meet it again, and say so
        having = [host for host in self._hosts if model.id in self._models(host)]
        return (self._models(having[0])[model.id] if having else None), having

    def _models(self, host: str) -> dict[str, ModelFacts]:
        if host not in self._listed:
            try:
                models = self._engines.get("lmstudio", [host]).models()
            except Failure:
                models = []
            self._listed[host] = {facts.id: facts for facts in models}
        return self._listed[host]


def _collect_manifest(config: pytest.Config, settings: Settings) -> None:
    """With no paths on the command line, the manifest is collected beside `testpaths`."""
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return
    if not any(settings.models.is_relative_to(config.invocation_params.dir / arg)
               for arg in config.args):  # fmt: skip
        config.args.append(str(settings.models))
