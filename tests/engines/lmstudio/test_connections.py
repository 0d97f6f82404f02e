"""The connection to LM Studio: found, lost, reopened, and refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import lmstudio
import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.lmstudio import connection
from pytest_lmstrix.engines.lmstudio.engine import PREFIX, LmStudioEngine
from tests.engines.lmstudio.studio import Watched
from tests.standin.lmstudio import Fault


def test_a_lost_connection_is_not_the_models_fault(studio: Any) -> None:
    own = studio(faults=(Fault(where="predict", kind="close_socket"),))
    instance = own.load()
    with pytest.raises(Failure) as failed:
        instance.complete("2 + 3 =", max_tokens=4)
    assert (failed.value.verdict, failed.value.phase) == (Verdict.UNREACHABLE, "predict")
    assert instance.complete("2 + 3 =", max_tokens=4).text.strip() == "5"
    instance.unload()


def test_a_load_that_loses_its_connection_leaves_no_instance(studio: Any) -> None:
    own = studio(faults=(Fault(where="load_progress", kind="close_socket", after=0.5),))
    with pytest.raises(Failure) as failed:
        own.load()
    assert failed.value.verdict is Verdict.UNREACHABLE
    assert len(own.server.ever_loaded(PREFIX)) == 1
    assert own.ours() == []


def test_a_dropped_connection_is_reopened(studio: Any) -> None:
    own = studio()
    instance = own.load()
    own.drop_connections()
    assert instance.complete("2 + 3 =", max_tokens=4).text.strip() == "5"
    own.drop_connections()
    instance.unload()
    own.drop_connections()
    own.load().unload()
    own.drop_connections()
    assert len(own.engine.models()) == 1


def test_a_restarted_server_has_lost_the_instance(studio: Any) -> None:
    own = studio()
    instance = own.load()
    own.restart()
    with pytest.raises(Failure) as failed:
        instance.complete("2 + 3 =", max_tokens=4)
    assert failed.value.verdict is Verdict.CRASHED
    instance.unload()
    own.load().unload()


def test_no_server(studio: Any) -> None:
    own = studio()
    own.server.go_away()
    with pytest.raises(Failure, match="not reachable") as failed:
        own.load()
    assert (failed.value.verdict, failed.value.phase) == (Verdict.UNREACHABLE, "connect")
    assert own.engine.version is None
    own.server.come_back()
    own.load().unload()


def test_a_silent_server_is_unreachable_not_a_slow_model(
    studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def freeze() -> None:
        monkeypatch.setattr(connection, "RPC_SECONDS", 0.3)
        own.server.freeze()

    own = studio(faults=(Fault(where="fragment", kind="hang"),), reply_timeout=0.3)
    instance = own.load(progress=Watched(on_prefill=freeze))
    with pytest.raises(Failure) as failed:
        instance.complete("2 + 3 =", max_tokens=4)
    assert failed.value.verdict is Verdict.UNREACHABLE
    monkeypatch.undo()
    own.server.thaw()
    instance.unload()


def test_a_hanging_handshake_is_unreachable(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RPC_SECONDS", 0.3)
    own = studio(faults=(Fault(where="connect", kind="hang"),))
    with pytest.raises(Failure, match="has accepted no connection for") as failed:
        own.engine.models()
    assert (failed.value.verdict, failed.value.phase) == (Verdict.UNREACHABLE, "connect")
    monkeypatch.undo()
    own.engine.models()


def test_the_server_is_found_at_a_default_port_despite_a_proxy(
    studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = studio()
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(lmstudio.Client, "_DEFAULT_API_PORTS", (9, own.server.port))
    engine = LmStudioEngine()
    assert engine.host == own.server.host
    assert [facts.id for facts in engine.models()] == ["tiny"]
    engine.close()


def test_an_interfering_proxy_is_named(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = studio()
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with pytest.raises(Failure, match=r"set NO_PROXY=127\.0\.0\.1 as well") as failed:
        own.engine.models()
    assert failed.value.verdict is Verdict.UNREACHABLE
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    own.engine.models()


def test_no_server_at_any_default_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmstudio.Client, "_DEFAULT_API_PORTS", (9,))
    engine = LmStudioEngine()
    assert (engine.host, engine.version) == ("localhost", None)
    with pytest.raises(Failure, match="default ports") as failed:
        engine.models()
    assert (failed.value.verdict, failed.value.phase) == (Verdict.UNREACHABLE, "connect")


def test_the_sdk_writes_nothing_to_stderr() -> None:
    script = """
from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine
from tests.standin.lmstudio import LmStudioServer, StandInModel
with LmStudioServer([StandInModel(key="tiny")]) as server:
    engine = LmStudioEngine(server.host)
    engine.models()
    server.drop_connections()
    print(len(engine.models()))
    engine.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
