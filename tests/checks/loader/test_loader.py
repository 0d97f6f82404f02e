"""Loads: locked hosts, reuse, reloads, unloads, and exceptions of engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Engine
from pytest_lmstrix.engines.catalog import host_of
from tests.checks.loader.bare_engine import A, B, BareEngine, Watching


@pytest.fixture
def engine() -> BareEngine:
    return BareEngine()


@pytest.fixture
def loader(engine: BareEngine) -> ModelLoader:
    @contextmanager
    def host_lock(used: Engine, case: Case, wait_seconds: float | None) -> Iterator[None]:
        engine.log.append(f"lock {host_of(used)}")
        try:
            yield
        finally:
            engine.log.append("free")

    def engine_of(model: Model, gone: object) -> Engine:
        return engine  # type: ignore[return-value]

    return ModelLoader(engine_of, host_lock=host_lock, watch=Watching())


def test_the_host_is_locked_from_load_to_confirmed_unload(
    loader: ModelLoader, engine: BareEngine
) -> None:
    loader.load(A, 5)
    assert engine.log == ["lock bare", "load a 5"]
    loader.unload()
    loader.unload()
    assert engine.log[2:] == ["unload", "free"]


def test_the_host_of_an_engine_that_loads_nothing_is_not_locked(
    loader: ModelLoader, engine: BareEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BareEngine, "attaches", True, raising=False)
    loader.load(A, 512)
    loader.unload()
    assert engine.log == ["load a 512", "unload"]


def test_the_host_is_released_after_the_pause_that_follows_an_unload(
    engine: BareEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def host_lock(used: Engine, case: Case, wait_seconds: float | None) -> Iterator[None]:
        yield
        engine.log.append("free")

    monkeypatch.setattr(time, "sleep", lambda seconds: engine.log.append(f"pause {seconds}"))
    loader = ModelLoader(
        lambda model, gone: engine,  # type: ignore[arg-type,return-value]
        host_lock=host_lock,
        watch=Watching(),
        cooldown=2.5,
    )
    loader.load(A, 5)
    assert engine.log == ["load a 5"]
    loader.unload()
    loader.unload()
    assert engine.log[1:] == ["unload", "pause 2.5", "free"]


def test_a_load_is_reused_until_another_is_requested(
    loader: ModelLoader, engine: BareEngine
) -> None:
    first = loader.load(A, 5)
    assert loader.load(A, 5) is first
    loader.load(A, 6)
    loader.load(B, 6)
    loads = [line for line in engine.log if line.startswith(("load", "unload"))]
    assert loads == ["load a 5", "unload", "load a 6", "unload", "load b 6"]


def test_an_unloaded_model_is_loaded_again_on_request(
    loader: ModelLoader, engine: BareEngine
) -> None:
    first = loader.load(A, 5)
    loader.load(B, 5)
    assert first.complete("hi", max_tokens=1).text == "hi"
    assert engine.log.count("load a 5") == 2
    assert [reply.text for reply in first.replies] == ["hi"]


def test_a_reload_with_another_granted_context_fails_and_is_unloaded(
    loader: ModelLoader, engine: BareEngine
) -> None:
    engine.grants = [5_000, 4_096]
    loaded = loader.load(A, 5_000)
    loader.unload()
    with pytest.raises(Failure, match="granted 4,096 and not 5,000 as before") as caught:
        loaded.chat("hello", max_tokens=1)
    assert (caught.value.verdict, caught.value.phase) == (Verdict.CONTEXT_NOT_GRANTED, "load")
    assert loader.loaded() is None
    assert engine.log[-2:] == ["unload", "free"]
    assert loaded.replies == []


def test_a_reload_with_the_same_granted_context_answers(
    loader: ModelLoader, engine: BareEngine
) -> None:
    engine.grants = [4_096, 4_096]
    loaded = loader.load(A, 5_000)
    loader.unload()
    assert loaded.chat("hello", max_tokens=1).text == "hello"


def lose_the_host(loader: ModelLoader, engine: BareEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load a model, and let a later request find its host unreachable."""
    monkeypatch.setattr("pytest_lmstrix.checks.loader.RECONNECT_PAUSES", (0.0,))
    loaded = loader.load(A, 5)
    refused = Failure("refused", verdict=Verdict.UNREACHABLE, phase="predict")
    engine.raises.update(complete=refused, models=refused)
    with pytest.raises(Failure, match="refused"):
        loaded.complete("x", max_tokens=1)
    assert loader.unreachable_reason(A) is refused


def test_a_final_refusal_is_asked_once(loader: ModelLoader, engine: BareEngine) -> None:
    refused = Failure("wrong token", verdict=Verdict.UNREACHABLE, phase="connect", final=True)
    engine.raises["load"] = refused
    for _ in range(2):
        with pytest.raises(Failure, match="wrong token"):
            loader.load(A, 5)
    assert engine.log == ["lock bare", "load a 5", "free"]
    assert loader.unreachable_reason(A) is refused


def test_an_unload_on_a_host_known_unreachable_is_not_reported_again(
    loader: ModelLoader, engine: BareEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_the_host(loader, engine, monkeypatch)
    engine.raises["unload"] = Failure("refused", verdict=Verdict.UNREACHABLE)
    loader.unload()
    loader.report_leaks()
    assert (loader.loaded(), engine.log[-1]) == (None, "free")


def test_an_unload_that_first_finds_the_host_unreachable_is_reported(
    loader: ModelLoader, engine: BareEngine
) -> None:
    engine.raises["unload"] = Failure("refused", verdict=Verdict.UNREACHABLE)
    loader.load(A, 5)
    loader.unload()
    with pytest.raises(Failure, match="a may still be in memory: refused") as caught:
        loader.report_leaks()
    assert (caught.value.verdict, caught.value.phase) == (Verdict.UNREACHABLE, "unload")


def test_an_unload_that_fails_otherwise_on_an_unreachable_host_is_reported(
    loader: ModelLoader, engine: BareEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_the_host(loader, engine, monkeypatch)
    engine.raises["unload"] = Failure("still there", verdict=Verdict.ENGINE_ERROR)
    loader.unload()
    with pytest.raises(Failure, match="a may still be in memory: still there"):
        loader.report_leaks()


@pytest.mark.parametrize(
    ("where", "ask"),
    [
        ("load", lambda loader: loader.load(A, 5)),
        ("complete", lambda loader: loader.load(A, 5).complete("x", max_tokens=1)),
        ("unload", lambda loader: (loader.load(A, 5), loader.unload(), loader.report_leaks())),
    ],
)
def test_any_engine_exception_is_a_failure_and_releases_the_host(
    loader: ModelLoader, engine: BareEngine, where: str, ask: Callable[[ModelLoader], object]
) -> None:
    engine.raises[where] = RuntimeError("CUDA error: out of memory")
    with pytest.raises(Failure) as caught:
        ask(loader)
    assert caught.value.verdict is Verdict.OUT_OF_MEMORY
    assert "RuntimeError: CUDA error" in caught.value.text
    engine.raises.clear()
    loader.unload()
    assert engine.log[-1] == "free"


def test_an_interrupted_load_releases_the_host(loader: ModelLoader, engine: BareEngine) -> None:
    engine.raises["load"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        loader.load(A, 5)
    assert engine.log[-1] == "free"


def test_a_missing_model_is_not_loaded_at_another_size(
    loader: ModelLoader, engine: BareEngine
) -> None:
    engine.raises["load"] = Failure("gone", verdict=Verdict.MODEL_NOT_FOUND)
    for size in (5, 6):
        with pytest.raises(Failure):
            loader.load(A, size)
    assert engine.log.count("lock bare") == 1


def test_a_corrupted_cache_detected_in_a_reply_is_remembered(
    loader: ModelLoader, engine: BareEngine
) -> None:
    engine.raises["complete"] = Failure.from_engine("llama_memory is null", phase="predict")
    loaded = loader.load(A, 5)
    with pytest.raises(Failure):
        loaded.complete("x", max_tokens=1)
    with pytest.raises(Failure, match="llama_memory"):
        loader.load(A, 6)
    assert loader.load(B, 6).model is B


def test_a_failed_weights_download_does_not_mark_the_host_unreachable(
    loader: ModelLoader, engine: BareEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_lmstrix.checks.loader.RECONNECT_PAUSES", (0.0,))
    engine.raises["load"] = Failure("no route", verdict=Verdict.UNREACHABLE, code="weights")
    with pytest.raises(Failure):
        loader.load(A, 5)
    assert loader.unreachable_reason(A) is not None
    assert loader.unreachable_reason(B) is None
    engine.raises["load"] = engine.raises["models"] = Failure(
        "refused", verdict=Verdict.UNREACHABLE
    )
    with pytest.raises(Failure):
        loader.load(B, 5)
    assert loader.unreachable_reason(B) is not None


def test_chat_accepts_a_plain_message(loader: ModelLoader) -> None:
    assert loader.load(A, 5).chat("hello", max_tokens=1).text == "hello"


def test_a_host_that_is_back_is_used_again(
    loader: ModelLoader, engine: BareEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader.load(A, 5)
    loader.unload()
    host = host_of(loader.engine_of(A))
    loader.gone[host] = Failure("away", verdict=Verdict.UNREACHABLE)
    loader.choose_host(A)
    assert loader.unreachable_reason(A) is not None
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    loader.choose_host(A)
    assert loader.unreachable_reason(A) is None
