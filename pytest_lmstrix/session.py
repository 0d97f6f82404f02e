"""A run that is about models: makes or takes its plan, and registers the plugins that act on it."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from pytest_lmstrix import fixtures, leases, weights
from pytest_lmstrix.bench import Bench
from pytest_lmstrix.collection import Collection
from pytest_lmstrix.engines import Engines, host_of
from pytest_lmstrix.engines.base import Engine
from pytest_lmstrix.examining import Examiner
from pytest_lmstrix.hookspecs import registered_engines
from pytest_lmstrix.judging import Judge
from pytest_lmstrix.options import Settings, read_settings
from pytest_lmstrix.outcomes import Outcomes
from pytest_lmstrix.plan import Plan
from pytest_lmstrix.planning import make_plan
from pytest_lmstrix.reporting.live import Live
from pytest_lmstrix.reporting.session import Reporting
from pytest_lmstrix.scheduling import Scheduling, plan_from_controller, worker_number
from pytest_lmstrix.signals import Signals
from pytest_lmstrix.text import one_line
from pytest_lmstrix.types import Model


def start(config: pytest.Config) -> None:
    """Make the plan, or take it from the controller, and register everything that acts on it.

    Raises:
        pytest.UsageError: A mistake in an option or in the manifest.
    """
    settings = read_settings(config)
    live = Live(config)
    engines = _engines(config, settings, live)
    config.add_cleanup(engines.close)
    register = config.pluginmanager.register
    plan = plan_from_controller(config)
    if plan is None:
        plan = make_plan(settings, engines, machine=machine())
        config.option.lmstrix_models = str(settings.models)
        _collect_manifest(config, settings)
        sweep = partial(_sweep_all, settings, engines, plan, partial(_tell, config, live))
        register(Scheduling(plan, sweep), "lmstrix-scheduling")
        register(Reporting(config, settings, plan, machine()), "lmstrix-reporting")
    for tag in {tag for each in plan.models for tag in each.model.tags}:
        config.addinivalue_line("markers", f"{tag}: models that the manifest tags so")
    bench = _bench(settings, engines, plan, live)
    config.add_cleanup(partial(_finish, bench, partial(_tell, config, live)))
    judge = Judge(bench, run=plan.run, machine=machine(), speeds=plan.speeds)
    examiner = Examiner(judge, known=plan.ranges, seed=plan.seed)
    config.stash[fixtures.bench_key] = bench
    config.stash[fixtures.judge_key] = judge
    config.stash[fixtures.examiner_key] = examiner
    register(fixtures, "lmstrix-fixtures")
    register(Collection(settings, plan, examiner), "lmstrix-collection")
    register(Outcomes(bench, judge), "lmstrix-outcomes")
    register(Signals(), "lmstrix-signals")


def machine() -> str:
    """Identifies this machine without naming it: results are compared with their like.

    `PYTEST_LMSTRIX_MACHINE` gives machines that are alike, such as hosted runners, one name.
    """
    given = os.environ.get("PYTEST_LMSTRIX_MACHINE")
    # Not the host name, which changes with the network; the hardware's address, unless random.
    address = uuid.getnode()
    here = platform.node() if address >> 40 & 1 else f"{address:x}"
    facts = given or f"{here} {platform.machine()} {platform.system()}"
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


def _engines(config: pytest.Config, settings: Settings, live: Live) -> Engines:
    hosts = settings.hosts
    return Engines(
        registered_engines(config),
        home=hosts[worker_number(config) % len(hosts)] if hosts else None,
        load_timeout=settings.load_timeout,
        reply_timeout=settings.reply_timeout,
        weights=partial(_weights, settings, live),
        owner=leases.owner_token(),
        tell=partial(_tell, config, live),
    )


def _weights(settings: Settings, live: Live, model: Model) -> Path:
    assert model.source is not None  # the engine looks elsewhere itself
    with live.downloading(model.id) as progress:
        return weights.fetch(
            model.source, sha256=model.sha256, base_dir=settings.models.parent, progress=progress
        )


def _bench(settings: Settings, engines: Engines, plan: Plan, live: Live) -> Bench:
    hosts = {each.model.id: each.hosts for each in plan.models}

    return Bench(
        lambda model: engines.get(model.engine, hosts.get(model.id, ())),
        host_lock=lambda host: leases.host_lock(
            host, on_wait=lambda holder: live.waiting(host, holder)
        ),
        watch=live,
        prepare=_sweep,
        cooldown=settings.cooldown,
    )


def _sweep(engine: Engine) -> None:
    """Unload what runs and workers that are dead have left behind."""
    of_dead_owners = getattr(engine, "sweep", None)
    if of_dead_owners is not None:
        of_dead_owners(leases.owner_is_dead)


def _sweep_all(
    settings: Settings, engines: Engines, plan: Plan, tell: Callable[[str], None]
) -> None:
    """The same on every host of the run; what cannot be unloaded the engines tell themselves."""
    used = {
        id(engine): engine
        for planned in plan.models
        for host in planned.hosts or settings.hosts or [None]
        for engine in [engines.get(planned.model.engine, [host] if host else ())]
    }
    for engine in used.values():
        try:
            _sweep(engine)
        except Exception as error:  # an engine of somebody else's may raise anything
            left = f"{host_of(engine)} may still have loaded what a worker that died has left"
            tell(f"{left}: {error}")


def _finish(bench: Bench, tell: Callable[[str], None]) -> None:
    """Unload what no teardown has, and tell what none has told, as after an interrupt."""
    bench.unload()
    for leak in bench.leaks:
        tell(leak.text)


def _tell(config: pytest.Config, live: Live, text: str) -> None:
    """Write a line of its own, whatever is captured; workers of pytest-xdist have no terminal."""
    if hasattr(config, "workerinput"):
        return
    live.idle()
    capture = config.pluginmanager.get_plugin("capturemanager")
    disabled = capture.global_and_fixture_disabled() if capture is not None else nullcontext()
    with live.aside(), disabled:
        print(f"\nlmstrix: {one_line(text, 500)}", flush=True)


def _collect_manifest(config: pytest.Config, settings: Settings) -> None:
    """With no paths on the command line, the manifest is collected beside `testpaths`."""
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return
    if not any(
        settings.models.is_relative_to(config.invocation_params.dir / arg) for arg in config.args
    ):
        config.args.append(str(settings.models))
