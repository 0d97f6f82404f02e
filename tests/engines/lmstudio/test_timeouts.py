"""Silence and interrupts: what is given up is cancelled, and what finishes late is unloaded."""

from __future__ import annotations

from typing import Any

import lmstudio
import pytest
from lmstudio.sync_api import SyncChannel

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.lmstudio import connection, instance
from pytest_lmstrix.engines.lmstudio.engine import PREFIX
from tests.engines.lmstudio.studio import Watched, when
from tests.standin.lmstudio import Fault, StandInModel


def test_a_load_that_finishes_after_its_timeout_is_unloaded(
    studio: Any, caplog: pytest.LogCaptureFixture
) -> None:
    own = studio(faults=(Fault(where="load_progress", kind="hang", after=0.5),), load_timeout=0.3)
    release = when(own.server, lambda: len(own.server.named("listLoaded")) > 3, own.server.release)
    with pytest.raises(Failure, match=r"no progress for 0.3 s while loading tiny") as failed:
        own.load()
    release.join()
    assert (failed.value.verdict, failed.value.phase) == (Verdict.TIMEOUT, "load")
    assert len(own.server.ever_loaded(PREFIX)) == 1
    assert own.ours() == []
    assert "to finish a load that was given up" in caplog.text


@pytest.mark.parametrize("back", [False, True])
def test_load_progress_without_a_new_maximum_counts_as_silence(studio: Any, back: bool) -> None:
    same = Fault(where="load_progress", kind="repeat", after=0.5, seconds=0.05, back=back)
    own = studio(faults=(same,), load_timeout=0.5)
    with pytest.raises(Failure, match=r"no progress for 0.5 s while loading tiny") as failed:
        own.load()
    assert (failed.value.verdict, failed.value.phase) == (Verdict.TIMEOUT, "load")
    assert own.ours() == []
    own.load().unload()


def test_repeated_prefill_progress_counts_as_silence(studio: Any) -> None:
    same = Fault(where="prefill", kind="repeat", after=0.5, seconds=0.05)
    own = studio(faults=(same,), reply_timeout=0.5)
    instance = own.load()
    with pytest.raises(Failure, match=r"no progress for 0.5 s while answering") as failed:
        instance.complete("6 + 3 =", max_tokens=4)
    assert (failed.value.verdict, failed.value.phase) == (Verdict.TIMEOUT, "predict")
    assert own.ours() == []


def test_a_silent_prefill_times_out_like_a_reply_after_progress(studio: Any) -> None:
    same = Fault(where="prefill", kind="repeat", after=0.5, seconds=0.05)
    own = studio(faults=(same,), reply_timeout=0.5)
    with pytest.raises(Failure, match=r"no progress for 0.5 s while answering"):
        own.load().complete("word " * 500, max_tokens=4)


@pytest.mark.parametrize("limit", [4, 64])
def test_an_endless_reply_is_cancelled(studio: Any, limit: int) -> None:
    own = studio(faults=(Fault(where="fragment", kind="repeat", seconds=0.001),))
    instance = own.load()
    with pytest.raises(Failure, match=rf"goes on answering beyond the {limit} tokens") as failed:
        instance.complete("6 + 3 =", max_tokens=limit)
    assert failed.value.verdict is Verdict.ENGINE_ERROR
    own.server.wait_for(lambda: own.server.predictions()[0].cancelled)
    instance.unload()
    assert own.ours() == []


def test_a_very_late_load_is_unloaded_before_the_next_load(studio: Any) -> None:
    own = studio(
        faults=(Fault(where="load", kind="hang"),), load_timeout=0.3, late_load_seconds=0.0
    )
    with pytest.raises(Failure):
        own.load()
    own.server.release()
    own.server.wait_for(lambda: len(own.server.ever_loaded(PREFIX)) == 1)
    own.engine.load_timeout = 60.0
    own.load().unload()
    assert own.server.max_loaded_at_once(PREFIX) == 1


def test_a_very_late_load_is_unloaded_at_the_end(studio: Any) -> None:
    own = studio(
        faults=(Fault(where="load", kind="hang"),), load_timeout=0.3, late_load_seconds=0.0
    )
    with pytest.raises(Failure):
        own.load()
    own.server.release()
    own.server.wait_for(lambda: len(own.server.ever_loaded(PREFIX)) == 1)
    own.engine.close()
    assert own.ours() == []


def test_an_interrupted_load_is_unloaded(studio: Any) -> None:
    own = studio()

    def interrupt(fraction: float) -> None:
        if fraction >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own.load(progress=Watched(on_load=interrupt))
    assert len(own.server.ever_loaded(PREFIX)) == 1
    assert own.ours() == []


def test_progress_resets_the_load_timeout(studio: Any) -> None:
    steps = tuple(
        Fault(where="load_progress", kind="slow", seconds=0.6, after=step / 4)
        for step in range(1, 5)
    )
    own = studio(faults=steps, load_timeout=2.0)
    own.load().unload()


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> list[SyncChannel[Any]]:
    """The predictions that the client has cancelled."""
    channels: list[SyncChannel[Any]] = []
    cancel = SyncChannel.cancel

    def note(channel: SyncChannel[Any]) -> None:
        cancel(channel)
        channels.append(channel)

    monkeypatch.setattr(SyncChannel, "cancel", note)
    return channels


def test_a_reply_that_times_out_is_cancelled_and_the_instance_unloaded(
    studio: Any, cancelled: list[Any]
) -> None:
    own = studio(faults=(Fault(where="fragment", kind="hang"),), reply_timeout=0.3)
    instance = own.load()
    with pytest.raises(Failure, match=r"no progress for 0.3 s while answering") as failed:
        instance.complete("2 + 3 =", max_tokens=4)
    assert (failed.value.verdict, failed.value.phase) == (Verdict.TIMEOUT, "predict")
    assert len(cancelled) == 1
    assert own.ours() == []
    with pytest.raises(Failure) as again:
        instance.complete("2 + 3 =", max_tokens=4)
    assert again.value.verdict is Verdict.TIMEOUT
    instance.unload()


def test_an_interrupted_reply_is_cancelled_and_the_instance_unloaded(
    studio: Any, cancelled: list[Any]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    own = studio()
    instance = own.load(progress=Watched(on_prefill=interrupt))
    with pytest.raises(KeyboardInterrupt):
        instance.complete("2 + 3 =", max_tokens=4)
    assert len(cancelled) == 1
    assert own.ours() == []
    instance.unload()


def test_an_interrupted_load_that_finishes_late_is_unloaded(studio: Any) -> None:
    def interrupt(fraction: float) -> None:
        raise KeyboardInterrupt

    own = studio(faults=(Fault(where="load_progress", kind="hang", after=0.5),))
    release = when(own.server, lambda: len(own.server.named("listLoaded")) > 3, own.server.release)
    with pytest.raises(KeyboardInterrupt):
        own.load(progress=Watched(on_load=interrupt))
    release.join()
    assert len(own.server.ever_loaded(PREFIX)) == 1
    assert own.ours() == []


def test_a_second_interrupt_stops_waiting_for_a_late_load(
    studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    own = studio(faults=(Fault(where="load_progress", kind="hang", after=0.5),))
    monkeypatch.setattr("pytest_lmstrix.engines.lmstudio.engine.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        own.load(progress=Watched(on_load=interrupt))
    own.server.release()
    own.server.wait_for(lambda: len(own.server.ever_loaded(PREFIX)) == 1)
    own.engine.close()
    assert own.ours() == []


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The timeouts that were set, in order."""
    seen: list[float | None] = []

    def note(seconds: float | None) -> None:
        seen.append(seconds)
        lmstudio.set_sync_api_timeout(seconds)

    monkeypatch.setattr(connection, "set_sync_api_timeout", note)
    monkeypatch.setattr(instance, "set_sync_api_timeout", note)
    return seen


@pytest.mark.parametrize("steps", [0, 4], ids=["no progress", "progress"])
def test_the_prefill_timeout_grows_with_the_prompt(
    studio: Any, steps: int, limits: list[float | None]
) -> None:
    own = studio(StandInModel(key="tiny", prefill_steps=steps), reply_timeout=2.0)
    usual = lmstudio.get_sync_api_timeout()
    instance = own.load()
    prompt = "word " * 500
    tokens = instance.count_tokens(prompt)
    limits.clear()
    instance.complete(prompt, max_tokens=2)
    first, *rest = limits  # the tokens are known
    assert first == tokens / 50 > 2.0
    assert 2.0 in rest
    assert lmstudio.get_sync_api_timeout() == usual
    instance.unload()
