"""Every layer of the guaranteed unload, with the layers above it disabled."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine
from pytest_lmstrix.engines.lmstudio.instance import LmStudioInstance
from tests.end_to_end.faults.conftest import assert_only_ours_were_touched, ours, run, stand_in
from tests.end_to_end.project import Project
from tests.standin.lmstudio import Fault, LmStudioServer, StandInModel


@pytest.fixture
def server() -> Iterator[LmStudioServer]:
    with stand_in(["one", "two"]) as server:
        yield server
    assert_only_ours_were_touched(server, at_once=2)  # what one test left and what it loads


def test_an_interrupted_unload_is_repeated_at_the_end(
    project: Project, server: LmStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    unload = LmStudioInstance.unload
    interrupts = iter([KeyboardInterrupt])

    def interrupted(instance: LmStudioInstance) -> None:
        for interrupt in interrupts:
            raise interrupt
        unload(instance)

    monkeypatch.setattr(LmStudioInstance, "unload", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(project, server, ["one"], "full")
    assert len(server.ever_loaded("lmstrix-")) == 1
    assert ours(server) == []


def test_the_engine_unloads_at_exit_without_teardown(
    project: Project, server: LmStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelLoader, "unload", lambda loader: None)
    run(project, server, ["one"], "full").assert_outcomes(passed=1)
    assert len(server.ever_loaded("lmstrix-")) == 1
    assert ours(server) == []


def test_an_interrupt_right_after_a_load_leaks_no_instance(
    project: Project, server: LmStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = LmStudioEngine.load

    def interrupted(*args: object) -> None:
        load(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(LmStudioEngine, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(project, server, ["one"], "full")
    assert len(server.ever_loaded("lmstrix-")) == 1
    assert ours(server) == []


def test_a_leaked_instance_expires(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelLoader, "unload", lambda loader: None)
    monkeypatch.setattr(LmStudioEngine, "close", lambda engine: engine.link.drop())
    ahead = [0.0]
    models = [StandInModel(key="one")]
    with LmStudioServer(models, clock=lambda: time.monotonic() + ahead[0]) as server:
        run(project, server, ["one"], "full")
        assert len(ours(server)) == 1
        ahead[0] = 590.0
        assert len(ours(server)) == 1
        ahead[0] = 700.0
        assert ours(server) == []


def test_instances_of_a_dead_owner_are_swept_before_the_first_load(
    project: Project, server: LmStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        # The system releases the lock of a dead owner; this process is alive.
        broken.setattr(ModelLoader, "unload", lambda loader: loader._held.close())
        broken.setattr(LmStudioEngine, "close", lambda engine: engine.link.drop())
        run(project, server, ["one"], "full")
    (left,) = ours(server)
    run(project, server, ["one"], "full")
    assert left in ours(server), "its owner, this process, lives"
    monkeypatch.setattr("pytest_lmstrix.system.owners.owner_is_dead", lambda token: True)
    run(project, server, ["two"], "full").assert_outcomes(passed=1)
    assert ours(server) == []
    swept = next(call for call in server.unloads() if call.identifier == left)
    assert swept.number < server.loads()[-1].number


def test_a_second_interrupt_leaves_a_late_load_to_its_ttl(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pytest_lmstrix.engines.lmstudio.engine.time.sleep", interrupt)
    fault = Fault(where="load_progress", kind="hang", after=0.5)
    with stand_in(["one"], faults=[fault]) as server:
        with pytest.raises(KeyboardInterrupt):
            run(project, server, ["one"], "full", "--color=no")
        assert server.pending("loadModel")
    printed = capsys.readouterr().out
    assert "lmstrix: waiting up to 2 s for LM Studio to finish a load" in printed
    assert "Ctrl-C now leaves that to LM Studio" in printed
    assert f"may still have or load {server.loads()[0].identifier}" in printed
