"""Models of other clients are left alone; ours are unloaded, also after an exit."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.ollama.engine import OllamaEngine
from tests.engines.ollama.loads import PROMPT, TINY, load, running
from tests.standin.lmstudio import StandInModel
from tests.standin.ollama import Quirks


def test_a_model_of_another_client_is_never_replaced() -> None:
    with running() as (server, engine):
        server.use("tiny", 4096)
        assert engine.others() == {"tiny:latest": TINY.needed_bytes(4096)}
        with pytest.raises(Failure, match="another client has tiny:latest loaded") as failed:
            load(engine)
        engine.sweep(lambda owner: True)
        engine.close()
        assert server.loaded == {"tiny:latest": 4096}
    assert (failed.value.verdict, failed.value.phase) == (Verdict.HOST_TROUBLE, "load")


def test_the_interface_of_openai_takes_no_context_length() -> None:
    with running() as (server, engine):
        instance = load(engine)
        httpx.post(
            f"http://{server.address}/v1/chat/completions",
            json={
                "model": "tiny",
                "messages": [{"role": "user", "content": "Say hello"}],
                "options": {"num_ctx": 1024},
            },
        )
        assert server.loaded == {"tiny:latest": 4096}
        with pytest.raises(Failure, match="with 4,096 tokens instead of 1,024"):
            instance.complete(PROMPT, max_tokens=2)


def test_a_model_that_another_client_takes_over_is_left_to_it() -> None:
    with running() as (server, engine):
        instance = load(engine)
        answer = httpx.post(
            f"http://{server.address}/v1/chat/completions",
            json={"model": "tiny", "messages": [{"role": "user", "content": "Say hello"}]},
        )
        assert answer.is_success
        assert server.loaded == {"tiny:latest": 4096}
        with pytest.raises(Failure, match="with 4,096 tokens instead of 1,024") as failed:
            instance.complete(PROMPT, max_tokens=2)
        instance.unload()
        assert server.loaded == {"tiny:latest": 4096}
    assert failed.value.verdict is Verdict.HOST_TROUBLE


def test_an_evicted_model_is_the_hosts_trouble() -> None:
    with running() as (server, engine):
        instance = load(engine)
        server.evict("tiny")
        with pytest.raises(Failure, match="another client has unloaded tiny") as failed:
            instance.complete(PROMPT, max_tokens=2)
        instance.unload()
    assert failed.value.verdict is Verdict.HOST_TROUBLE


def test_a_model_that_the_load_evicts_is_noted() -> None:
    other = StandInModel(key="other")
    with running(Quirks(max_loaded=1), TINY, other) as (server, engine):
        server.use("other")
        assert "evicted: other:latest, which another client had loaded" in load(engine).notes


def test_a_full_queue_is_the_hosts_trouble() -> None:
    with running(Quirks(busy=True)) as (_, engine), pytest.raises(Failure) as failed:
        load(engine)
    assert failed.value.verdict is Verdict.HOST_TROUBLE


def test_an_unload_is_confirmed() -> None:
    with running(Quirks(unload_seconds=0.3)) as (server, engine):
        load(engine).unload()
        assert server.loaded == {}
    with (
        running(Quirks(unload_seconds=60)) as (_, engine),
        pytest.raises(Failure, match="still lists tiny") as failed,
    ):
        load(engine).unload()
    assert failed.value.phase == "unload"


def test_the_sweep_unloads_only_what_an_exited_owner_has_loaded(tmp_path: Path) -> None:
    other = StandInModel(key="other")
    with running(None, TINY, other, notes=tmp_path, owner="dead") as (server, killed):
        load(killed)
        server.use("other")
        engine = OllamaEngine(server.host, notes=tmp_path, owner="me")
        assert engine.sweep(lambda owner: owner != "dead") == []
        assert engine.sweep(lambda owner: owner == "dead") == ["tiny"]
        assert server.loaded == {"other:latest": 4096}
        assert list(tmp_path.iterdir()) == []
        engine.close()


def test_the_sweep_leaves_a_model_that_was_loaded_again_since(tmp_path: Path) -> None:
    with running(None, notes=tmp_path, owner="dead") as (server, killed):
        load(killed)
        server.use("tiny", 2048)
        engine = OllamaEngine(server.host, notes=tmp_path, owner="me")
        assert engine.sweep(lambda owner: owner == "dead") == []
        assert server.loaded == {"tiny:latest": 2048}
        engine.close()
