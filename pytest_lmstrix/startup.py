"""Starts a run with model tests: makes or receives the plan, and registers the plugins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import pytest

from pytest_lmstrix import wake
from pytest_lmstrix.checks.attempt import Attempts
from pytest_lmstrix.checks.case_memory import CaseMemory
from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.checks.sizes import SizePolicy
from pytest_lmstrix.core.memory import MachineMemory
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.types import Case, Host, Model
from pytest_lmstrix.engines.base import Engine, Sweeps
from pytest_lmstrix.engines.catalog import Engines, EngineUnavailable, host_of, hosts_for
from pytest_lmstrix.hooks import fixtures
from pytest_lmstrix.hooks.collection import Collection
from pytest_lmstrix.hooks.github_actions import GithubActions
from pytest_lmstrix.hooks.keywords import Keywords
from pytest_lmstrix.hooks.outcomes import Outcomes
from pytest_lmstrix.hooks.samples import Samples
from pytest_lmstrix.hooks.signals import Signals
from pytest_lmstrix.hooks.xdist.pauses import Pauses
from pytest_lmstrix.hooks.xdist.worker import own_hosts, plan_from_controller
from pytest_lmstrix.hookspecs import engine_options, registered_engines
from pytest_lmstrix.options import LOGS, Settings, read_settings, run_hosts, with_hosts
from pytest_lmstrix.plan.hosts.placement import slots_taken
from pytest_lmstrix.plan.memory import MemoryEstimator
from pytest_lmstrix.plan.plan import Plan
from pytest_lmstrix.progress.live import Live
from pytest_lmstrix.system import host_lock, owners
from pytest_lmstrix.system.garbage import collector_paused
from pytest_lmstrix.system.machine_id import machine_id
from pytest_lmstrix.system.workflow_commands import guarded
from pytest_lmstrix.wake import other_manifest
from pytest_lmstrix.weights import fetch


@collector_paused()
def start(config: pytest.Config) -> None:
    """Make the plan, or receive it from the controller, and register the plugins.

    Raises:
        pytest.UsageError: An option or the manifest is invalid.
    """
    settings = read_settings(config)
    live = Live(config)
    plan = plan_from_controller(config)
    if plan is None:
        from pytest_lmstrix.plan.build import read_models

        if remark := other_manifest(config, settings.models):
            raise pytest.UsageError(f"lmstrix: {remark}")
        manifest = read_models(settings)
        hosts = run_hosts(settings, manifest.hosts)
    else:
        hosts = plan.hosts
    settings = with_hosts(settings, hosts)
    engines = _engines(config, settings, hosts, live)
    config.add_cleanup(engines.close)
    register = config.pluginmanager.register
    _collect_manifest(config, settings)
    if plan is None:
        # Not for workers, which neither plan nor report.
        from pytest_lmstrix.hooks.xdist.controller import Scheduling
        from pytest_lmstrix.plan.build import make_plan
        from pytest_lmstrix.registry.store import Registry
        from pytest_lmstrix.reports.recorder import Recorder
        from pytest_lmstrix.reports.writer import Writer, check_registry

        if not config.option.collectonly:
            check_registry(settings.registry)
        registry = Registry(settings.registry)
        plan = make_plan(manifest, hosts, settings, engines, registry, machine=machine_id())
        config.option.lmstrix_models = str(settings.models)
        sweep = partial(_sweep_all, settings, engines, plan, partial(_print_line, config, live))
        notify = partial(_print_line, config, live)
        register(Scheduling(plan, sweep, notify), "lmstrix-scheduling")
        recorder = Recorder(config, settings, plan, registry)
        register(recorder, "lmstrix-recorder")
        register(Writer(config, settings, plan, machine_id(), recorder), "lmstrix-writer")
    else:
        register(Pauses(), "lmstrix-pauses")
    for tag in {tag for each in plan.all_models() for tag in each.model.tags}:
        config.addinivalue_line("markers", f"{tag}: models with this tag in the manifest")
    loader = _loader(settings, engines, plan, live)
    config.add_cleanup(partial(_finish, loader, partial(_print_line, config, live)))
    memory = _memory(engines, settings)
    attempts = Attempts(
        loader, run=plan.run, machine=machine_id(), speeds=plan.speeds, memory=memory
    )
    size_policy = SizePolicy(attempts, known=plan.ranges, seed=plan.seed, memory=memory)
    config.stash[fixtures.loader_key] = loader
    config.stash[fixtures.attempts_key] = attempts
    config.stash[fixtures.size_policy_key] = size_policy
    register(fixtures, "lmstrix-fixtures")
    register(Collection(settings, plan, size_policy), "lmstrix-collection")
    register(Keywords(), "lmstrix-keywords")
    outcomes = Outcomes(loader, attempts, plan, memory if settings.skip_unfit else None)
    register(outcomes, "lmstrix-outcomes")
    register(Samples(loader, outcomes.is_of_a_reply), "lmstrix-samples")
    register(Signals(), "lmstrix-signals")
    register(GithubActions(), "lmstrix-github-actions")


def _engines(
    config: pytest.Config, settings: Settings, hosts: Sequence[Host], live: Live
) -> Engines:
    options = engine_options(
        settings,
        weights=partial(_weights, settings, live),
        owner=owners.owner_token(),
        logs=settings.reports / LOGS,
        notify=partial(_print_line, config, live),
    )
    homes = own_hosts(config, settings.hosts)
    registered = registered_engines(config, options)
    engines = Engines(registered, homes=homes, hosts=hosts, options=options)
    named = [host.address for host in hosts if host.name is not None]
    given = [host.address for host in hosts if host.name is None]
    for where, some in (("--lmstrix-host", given), (f"{settings.models.name}: hosts", named)):
        try:
            engines.check_hosts(some)
        except EngineUnavailable as error:
            raise pytest.UsageError(f"{where}: {error}") from None
    return engines


def _weights(settings: Settings, live: Live, model: Model) -> Path:
    assert model.source is not None  # the engine finds models without a source itself
    with live.downloading(model.id) as progress:
        return fetch.fetch(
            model.source,
            sha256=model.sha256,
            base_dir=settings.models.parent,
            progress=progress,
            size_bytes=model.size_bytes,
        )


def _memory(engines: Engines, settings: Settings) -> CaseMemory:
    from pytest_lmstrix.engines.llamacpp.binary import Binary
    from pytest_lmstrix.engines.llamacpp.dry_run import read_machine_memory

    program = Binary(settings.llama_server)
    estimator = MemoryEstimator(
        registry=settings.registry,
        folder=settings.models.parent,
        machine=machine_id(),
        program=program,
    )
    others = set(engines.registered)
    if any(host.startswith("llama-server+") for host in settings.hosts):
        others.add("llama-server")  # a router has its own machine

    def read_machine(engine: str) -> MachineMemory:
        return read_machine_memory(program if engine == "llama-server" else None)

    return CaseMemory(estimator, registered=others, read_machine=read_machine)


def _loader(settings: Settings, engines: Engines, plan: Plan, live: Live) -> ModelLoader:
    planned = {each.model.id: each for each in plan.all_models()}

    def engine_of(model: Model, gone: Container[str]) -> Engine:
        hosts = planned[model.id].hosts if model.id in planned else ()
        return engines.get(model.engine, hosts, gone)

    def lock(
        engine: Engine, case: Case, wait_seconds: float | None
    ) -> AbstractContextManager[None]:
        host = engines.host(engine)
        return host_lock.host_lock(
            host_of(engine),
            slots=host.slots,
            take=slots_taken(planned.get(case.model.id), case.context_length, host),
            on_wait=partial(live.waiting, engines.host_name(engine)),
            timeout=wait_seconds,
        )

    return ModelLoader(
        engine_of,
        host_lock=lock,
        host_name=engines.host_name,
        watch=live,
        prepare=_sweep,
        cooldown=settings.cooldown,
    )


def _sweep(engine: Engine) -> None:
    """Unload the models that dead runs and workers left loaded."""
    if isinstance(engine, Sweeps):
        engine.sweep(owners.owner_is_dead)


def _sweep_all(
    settings: Settings, engines: Engines, plan: Plan, notify: Callable[[str], None]
) -> None:
    """Sweep every host of the run; the engines report failed unloads themselves."""
    used = {
        id(engine): engine
        for planned in plan.all_models()
        for host in planned.hosts or hosts_for(planned.model, settings.hosts) or [None]
        for engine in [engines.get(planned.model.engine, [host] if host else ())]
    }
    for engine in used.values():
        try:
            _sweep(engine)
        except Exception as error:  # third-party engines may raise anything
            leak = f"models of a dead worker may still be loaded on {engines.host_name(engine)}"
            notify(f"{leak}: {error}")


def _finish(loader: ModelLoader, notify: Callable[[str], None]) -> None:
    """Unload the last model and report its leaks, if no teardown did, as after an interrupt."""
    loader.unload()
    for leak in loader.leaks:
        notify(leak.text)


def _print_line(config: pytest.Config, live: Live, text: str) -> None:
    """Print a line past pytest's capture; workers of pytest-xdist have no terminal."""
    if hasattr(config, "workerinput"):
        return
    live.idle()
    capture = config.pluginmanager.get_plugin("capturemanager")
    disabled = capture.global_and_fixture_disabled() if capture is not None else nullcontext()
    with live.aside(), disabled:
        print(f"\nlmstrix: {one_line(text, 500)}", file=guarded(sys.stdout), flush=True)


def _collect_manifest(config: pytest.Config, settings: Settings) -> None:
    """Collect the manifest beside `testpaths`, if the command line has no paths."""
    if not (wake.paths_given(config) or wake.collects_manifest(config, settings.models)):
        config.args.append(str(settings.models))
