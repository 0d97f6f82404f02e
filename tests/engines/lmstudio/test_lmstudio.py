"""The engine `lmstudio`: the unmodified SDK against the stand-in server."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import httpx
import lmstudio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lmstudio.sync_api import SyncChannel

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.sanitize import well_formed
from pytest_lmstrix.core.types import LoadSettings, Message, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.lmstudio import connection, errors, instance
from pytest_lmstrix.engines.lmstudio.engine import PREFIX, LmStudioEngine
from pytest_lmstrix.engines.lmstudio.settings import AS_ASKED
from tests.engines.lmstudio.studio import MODEL, TINY, Watched
from tests.standin.lmstudio import (
    Crashes,
    Fault,
    GrantsAtMost,
    Guardrail,
    LmStudioServer,
    MissingFromDisk,
    Reasons,
    Says,
    ServerError,
    StandInModel,
)
from tests.standin.lmstudio.models import hostile

REFUSED = ServerError(title="Model unloading is not allowed.")
NOT_LOADED = ServerError(
    title="No model found that fits the query.",
    display_data={"code": "generic.noModelMatchingQuery"},
)


def test_load_requests_the_context_and_reads_back_the_granted_one(studio: Any) -> None:
    own = studio(StandInModel(key="tiny", behaviours=(GrantsAtMost(tokens=2048),)))
    progress = Watched()
    instance = own.load(30_000, progress)
    (load,) = own.server.loads()
    assert (load.context_length, instance.context_length) == (30_000, 2048)
    assert progress.fractions[-1] == 1.0
    assert sorted(progress.fractions) == progress.fractions
    assert own.ours() == [instance.identifier]
    instance.unload()


def test_an_instance_has_a_ttl_renewed_by_each_reply(studio: Any) -> None:
    own = studio(reply_timeout=1000.0)
    own.load().unload()
    assert own.server.loads()[0].ttl_ms == 2_000_000
    assert LmStudioEngine("host:1", reply_timeout=1.0).ttl_seconds == 600


def test_load_settings_reach_the_server(studio: Any) -> None:
    own = studio()
    load = LoadSettings(kv_cache_type="q8_0", flash_attention=True, gpu_offload=0.5, batch_size=256)
    model = Model(id="tiny", engine="lmstudio", load=load)
    own.engine.load(model, 4096, Watched()).unload()
    config = own.server.loads()[0].config
    assert config["llm.load.llama.kCacheQuantizationType"] == {"checked": True, "value": "q8_0"}
    assert config["llm.load.llama.vCacheQuantizationType"] == {"checked": True, "value": "q8_0"}
    assert config["llm.load.llama.flashAttention"] is True
    assert config["llm.load.llama.acceleration.offloadRatio"] == 0.5
    assert config["llm.load.llama.evalBatchSize"] == 256


def test_only_requested_settings_are_sent(studio: Any) -> None:
    own = studio()
    own.load(4096).unload()
    assert own.server.loads()[0].config == {"llm.load.contextLength": 4096, **AS_ASKED}


@pytest.mark.parametrize(
    "settings",
    [LoadSettings(threads=4), LoadSettings(gpu_layers=0), LoadSettings(kv_cache_type="bf16")],
    ids=["threads", "gpu_layers", "bf16"],
)
def test_an_unsupported_setting_is_refused(studio: Any, settings: LoadSettings) -> None:
    own = studio()
    with pytest.raises(Failure, match="'tiny': LM Studio does not support load setting"):
        own.engine.load(Model(id="tiny", engine="lmstudio", load=settings), 4096, Watched())
    assert own.server.loads() == []


def test_models_are_listed_with_their_facts(studio: Any) -> None:
    own = studio(
        StandInModel(
            key="pub/seer",
            size_bytes=7,
            path="pub/seer.gguf",
            max_context_length=8192,
            vision=True,
            trained_for_tool_use=True,
            quantization="Q8_0",
        ),
        TINY,
        StandInModel(key="embed", type="embedding", architecture=None, quantization=None),
    )
    seer, tiny, embed = own.engine.models()
    assert (seer.id, seer.type, seer.context_limit, seer.size_bytes) == (
        "pub/seer",
        "llm",
        8192,
        7,
    )
    assert seer.capabilities == ("vision", "tools")
    assert (seer.architecture, seer.quantization) == ("llama", "Q8_0")
    assert seer.fingerprint == "size:7 path:pub/seer.gguf"
    assert tiny.capabilities == ()
    assert (embed.type, embed.quantization) == ("embedding", None)
    assert own.engine.facts(MODEL) == tiny
    assert own.engine.facts(Model(id="absent", engine="lmstudio")) is None
    assert len(own.server.named("listDownloadedModels")) == 1


@pytest.mark.parametrize(
    "broken",
    [{"type": "hologram"}, {"sizeBytes": "much"}, {"modelKey": None}],
    ids=["type", "size", "key"],
)
def test_an_invalid_listing_entry_is_skipped(
    studio: Any, broken: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    own = studio(StandInModel(key="odd", listing=broken), TINY)
    assert [facts.id for facts in own.engine.models()] == ["tiny"]
    assert "left out" in caplog.text


def test_version(studio: Any) -> None:
    assert studio().engine.version == "0.3.30+1"


def test_completion_is_raw_at_the_requested_temperature(studio: Any) -> None:
    own = studio()
    instance = own.load()
    reply = instance.complete("2 + 3 =", max_tokens=4)
    assert reply.text.strip() == "5"
    config = own.server.predictions()[0].config
    assert config["llm.prediction.temperature"] == 0
    assert config["llm.prediction.maxPredictedTokens"] == {"checked": True, "value": 4}
    assert config["llm.prediction.contextOverflowPolicy"] == "stopAtLimit"
    assert "llm.prediction.promptTemplate" in config
    instance.complete("2 + 3 =", max_tokens=4, temperature=0.7)
    assert own.server.predictions()[1].config["llm.prediction.temperature"] == 0.7
    instance.unload()


def test_a_reply_has_the_measurements_of_the_server(studio: Any) -> None:
    own = studio()
    progress = Watched()
    instance = own.load(8192, progress)
    prompt = "It was a quiet day. " * 200
    reply = instance.complete(prompt, max_tokens=8)
    tokens = instance.count_tokens(prompt)
    assert reply.prompt_tokens is not None
    assert tokens <= reply.prompt_tokens <= tokens + 8
    assert reply.completion_tokens is not None
    assert 0 < reply.completion_tokens <= 8
    assert reply.decode_tokens_per_second == 50
    assert reply.cached_prompt_tokens == 0
    assert reply.ttft_seconds is not None
    assert reply.prefill_tokens_per_second == reply.prompt_tokens / reply.ttft_seconds
    assert progress.prefilled[-1] == (tokens, tokens)
    instance.unload()


def test_a_possibly_cached_prefill_is_not_measured(studio: Any) -> None:
    own = studio()
    instance = own.load(8192)
    prompt = "It was a quiet day. " * 200
    instance.complete(prompt, max_tokens=2)
    again = instance.complete(f"{prompt}2 + 3 =", max_tokens=2)
    assert (again.prefill_tokens_per_second, again.cached_prompt_tokens) == (None, None)
    other = instance.complete(f"Now for something else. {prompt}", max_tokens=2)
    assert other.prefill_tokens_per_second is not None
    assert other.cached_prompt_tokens is None
    instance.unload()


def test_stop_reasons(studio: Any) -> None:
    own = studio()
    instance = own.load()
    story = "Once upon a time there was a king. Once upon a time"
    assert instance.complete(story, max_tokens=1).stop_reason == "length"
    assert instance.complete("2 + 3 =", max_tokens=50).stop_reason == "stop"
    instance.unload()


def test_reasoning_is_separated_from_the_answer(studio: Any) -> None:
    own = studio(StandInModel(key="tiny", behaviours=(Reasons(tokens=5),)))
    instance = own.load()
    asked = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="What is 1 + 1?"),
        Message(role="assistant", content="2"),
        Message(role="user", content="What is 2 + 3?"),
    )
    reply = instance.chat(asked, max_tokens=50)
    assert reply.text.strip() == "5"
    assert reply.reasoning
    assert "<think>" not in reply.text + reply.reasoning
    assert own.server.predictions()[0].config["llm.prediction.temperature"] == 0
    assert "llm.prediction.promptTemplate" not in own.server.predictions()[0].config
    spent = instance.chat(asked, max_tokens=3)
    assert (spent.text, spent.stop_reason) == ("", "length")
    assert spent.reasoning
    instance.unload()


@pytest.mark.parametrize(
    ("said", "reasoning", "text"),
    [
        ("<think>\nhm\n</think>\n\n5", "hm", "5"),
        ("hm</think>5", "hm", "5"),
        ("<think>hm", "hm", ""),
        ("5 <think> 6", "", "5 <think> 6"),
        (" 5\n", "", " 5\n"),
        ("", "", ""),
    ],
    ids=["closed", "opened by the template", "budget spent", "inside", "none", "empty"],
)
def test_split_reasoning(said: str, reasoning: str, text: str) -> None:
    assert instance.split_reasoning(said) == (reasoning, text)


@settings(deadline=None)
@given(st.text().filter(lambda text: "think>" not in text))
def test_text_without_tags_is_the_answer(text: str) -> None:
    assert instance.split_reasoning(text) == ("", text)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<think>", "</think>", "5", " ", "\n", "hm"])))
def test_splitting_reasoning_keeps_all_words(parts: list[str]) -> None:
    said = "".join(parts)
    reasoning, text = instance.split_reasoning(said)
    for word in ("5", "hm"):
        assert (reasoning + text).count(word) == said.count(word)


WITHOUT_WORDS = "Model load error: 7 Additional information from server: [ 1 ]"
SERVER_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "title": ({"title": "Model unloaded."}, "Model unloaded."),
    "cause": ({"title": "Failed", "cause": "(Exit code: 6)."}, "Failed: (Exit code: 6)."),
    "root": ({"title": "Failed", "rootTitle": "Error loading"}, "Error loading: Failed"),
    "same root": ({"title": "Failed", "rootTitle": "Failed"}, "Failed"),
    "decoration": (
        {"title": "Failed", "suggestion": "Retry", "displayData": {"code": "x"}, "stack": "at y"},
        "Failed",
    ),
    "nothing": ({}, "Unknown error"),
    "empty": ({"title": ""}, "Model load error: Unknown remote error"),
    "no words": ({"title": 7, "displayData": [1]}, WITHOUT_WORDS),
}


@pytest.mark.parametrize(("details", "words"), SERVER_ERRORS.values(), ids=SERVER_ERRORS)
def test_server_errors_keep_their_text(details: dict[str, Any], words: str) -> None:
    error = lmstudio.LMStudioServerError.from_details("Model load error", details)
    failure = errors.failure_from(
        error, "load", doing="loading", silence_seconds=1.0, silent=Verdict.TIMEOUT
    )
    assert (failure.text, failure.phase) == (words, "load")
    assert failure.code == ("x" if "suggestion" in details else None)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (lmstudio.LMStudioTimeoutError(), Verdict.TIMEOUT),
        (lmstudio.LMStudioWebsocketError("gone"), Verdict.UNREACHABLE),
        (CancelledError(), Verdict.UNREACHABLE),
        (httpx.ReadTimeout("slow"), Verdict.UNREACHABLE),
        (lmstudio.LMStudioRuntimeError("active channel"), Verdict.ENGINE_ERROR),
        (msgspec.ValidationError("Expected `int`"), Verdict.ENGINE_ERROR),
        (lmstudio.LMStudioClientError("unexpected message"), Verdict.ENGINE_ERROR),
        (KeyError("tokenCount"), Verdict.ENGINE_ERROR),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_any_sdk_exception_is_a_failure(error: Exception, verdict: Verdict) -> None:
    failure = errors.failure_from(
        error, "predict", doing="answering", silence_seconds=3.0, silent=Verdict.TIMEOUT
    )
    assert (failure.verdict, failure.phase) == (verdict, "predict")
    assert "LM Studio" in failure.text
    assert "answering" in failure.text


@pytest.mark.parametrize("name", hostile.TEXTS)
def test_hostile_text_is_unchanged_but_well_formed(studio: Any, name: str) -> None:
    text = hostile.TEXTS[name]
    own = studio(StandInModel(key="tiny", behaviours=(Says(text=text),)))
    instance = own.load()
    reply = instance.complete("Go on:", max_tokens=1000)
    assert reply.text == well_formed(text)
    instance.unload()


def test_unload_is_idempotent_and_keeps_other_instances(studio: Any) -> None:
    own = studio()
    instance = own.load()
    instance.unload()
    instance.unload()
    assert len(own.server.unloads()) == 1
    assert own.server.loaded() == ("tiny",)


def test_a_missing_instance_counts_as_unloaded(studio: Any) -> None:
    own = studio()
    instance = own.load()
    own.server.unload_for_user(instance.identifier)
    instance.unload()
    assert own.server.unloads() == []


def test_an_instance_that_disappears_during_unload_counts_as_unloaded(studio: Any) -> None:
    gone = Fault(where="unloadModel", kind="error", error=NOT_LOADED)
    own = studio(faults=(gone,))
    instance = own.load()
    release = _when(
        own.server,
        lambda: len(own.server.unloads()) == 1,
        lambda: own.server.unload_for_user(instance.identifier),
    )
    instance.unload()
    release.join()


def test_an_unload_without_an_answer_is_checked_in_the_listing(
    studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = studio(faults=(Fault(where="unloadModel", kind="hang"),))
    instance = own.load()
    monkeypatch.setattr(connection, "RPC_SECONDS", 1.0)
    done = _when(
        own.server,
        lambda: len(own.server.named("listLoaded")) > 3,
        lambda: own.server.unload_for_user(instance.identifier),
    )
    instance.unload()
    done.join()
    assert own.ours() == []


@pytest.mark.parametrize(
    "fault", [{"kind": "error", "error": REFUSED}, {"kind": "ignore"}], ids=["refused", "ignored"]
)
def test_an_unload_that_fails_once_is_tried_again_at_once(
    studio: Any, fault: dict[str, Any]
) -> None:
    own = studio(faults=(Fault(where="unloadModel", **fault),), unload_seconds=0.0)
    own.load().unload()
    assert own.ours() == []
    assert len(own.server.unloads()) == 2


def test_an_unload_that_fails_twice_is_tried_again_before_the_next_load(studio: Any) -> None:
    own = studio(faults=(Fault(where="unloadModel", kind="error", times=2, error=REFUSED),))
    stale = own.load()
    with pytest.raises(Failure, match="Model unloading is not allowed"):
        stale.unload()
    following = own.load()
    assert own.ours() == [following.identifier]
    following.unload()


def test_a_refused_unload_is_reported(studio: Any) -> None:
    own = studio(faults=(Fault(where="unloadModel", kind="error", times=2, error=REFUSED),))
    instance = own.load()
    with pytest.raises(Failure, match="Model unloading is not allowed") as failed:
        instance.unload()
    assert failed.value.phase == "unload"
    instance.unload()


def test_an_unload_without_effect_is_detected(studio: Any) -> None:
    ignored = Fault(where="unloadModel", kind="ignore", times=2)
    own = studio(faults=(ignored,), unload_seconds=0.0)
    instance = own.load()
    with pytest.raises(Failure, match="still lists") as failed:
        instance.unload()
    assert (failed.value.phase, failed.value.verdict) == ("unload", Verdict.ENGINE_ERROR)
    instance.unload()


def test_a_slow_unload_is_awaited(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = studio(faults=(Fault(where="unloadModel", kind="ignore"),))
    instance = own.load()

    def later(seconds: float) -> None:
        if instance.identifier in own.server.loaded():
            own.server.unload_for_user(instance.identifier)

    monkeypatch.setattr("pytest_lmstrix.engines.lmstudio.engine.time.sleep", later)
    instance.unload()
    assert own.ours() == []


def test_instances_of_other_owners_are_not_unloaded(studio: Any) -> None:
    own = studio()
    with pytest.raises(ValueError, match="not one of our instances"):
        own.engine.unload("tiny")


@pytest.mark.parametrize(
    ("behaviour", "verdict"),
    [
        (MissingFromDisk(), Verdict.MODEL_NOT_FOUND),
        (Guardrail(above=100), Verdict.GUARDRAIL_REFUSED),
        (Crashes(at="load"), Verdict.CRASHED),
    ],
    ids=["missing", "guardrail", "crash"],
)
def test_a_failed_load_is_a_failure(studio: Any, behaviour: Any, verdict: Verdict) -> None:
    own = studio(StandInModel(key="tiny", behaviours=(behaviour,)))
    with pytest.raises(Failure) as failed:
        own.load()
    assert (failed.value.verdict, failed.value.phase) == (verdict, "load")
    assert "\n" not in failed.value.text


def test_error_codes_are_kept(studio: Any) -> None:
    own = studio()
    with pytest.raises(Failure) as failed:
        own.engine.load(Model(id="absent", engine="lmstudio"), 4096, Watched())
    assert failed.value.text == "Model not found: absent"
    assert failed.value.code == "generic.pathNotFound"


def test_an_overlong_prompt_is_a_failure(studio: Any) -> None:
    own = studio()
    instance = own.load(512)
    with pytest.raises(Failure, match="n_keep") as failed:
        instance.complete("word " * 600, max_tokens=4)
    assert failed.value.verdict is Verdict.CONTEXT_TOO_LARGE
    assert instance.complete("2 + 3 =", max_tokens=4).text.strip() == "5"
    instance.unload()


def test_an_instance_that_dies_is_crashed_not_missing(studio: Any) -> None:
    own = studio(StandInModel(key="tiny", behaviours=(Crashes(at="predict"),)))
    instance = own.load()
    for _ in range(2):
        with pytest.raises(Failure) as failed:
            instance.complete("2 + 3 =", max_tokens=4)
        assert failed.value.verdict is Verdict.CRASHED
    instance.unload()


def test_an_instance_unloaded_during_a_reply(studio: Any) -> None:
    own = studio(faults=(Fault(where="fragment", kind="hang"),))
    instance = own.load(progress=Watched(on_prefill=lambda: take_away()))

    def take_away() -> None:
        if instance.identifier in own.server.loaded():
            own.server.unload_for_user(instance.identifier)

    with pytest.raises(Failure, match="Model unloaded") as failed:
        instance.complete("2 + 3 =", max_tokens=4)
    assert failed.value.verdict is Verdict.CRASHED


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        ("modelUnloaded", Verdict.CRASHED),
        ("userStopped", Verdict.ENGINE_ERROR),
        ("failed", Verdict.ENGINE_ERROR),
    ],
)
def test_an_aborted_reply_is_a_failure(studio: Any, reason: str, verdict: Verdict) -> None:
    instance = studio(StandInModel(key="tiny", stats={"stopReason": reason})).load()
    with pytest.raises(Failure) as failed:
        instance.complete("2 + 3 =", max_tokens=4)
    assert failed.value.verdict is verdict
    instance.unload()


@pytest.mark.parametrize("reason", ["engineDied", "somethingNew"])
def test_a_reason_newer_than_the_sdk_does_not_spoil_an_answer(studio: Any, reason: str) -> None:
    instance = studio(StandInModel(key="tiny", stats={"stopReason": reason})).load()
    reply = instance.complete("2 + 3 =", max_tokens=4)
    assert (reply.text.strip(), reply.stop_reason) == ("5", None)
    instance.unload()


@pytest.mark.parametrize(
    ("reason", "verdict", "words"),
    [
        ("engineDied", Verdict.CRASHED, "engine died before it answered"),
        ("somethingNew", Verdict.UNREACHABLE, "this LM Studio is newer than the SDK"),
    ],
)
def test_a_newer_reason_without_an_answer_is_not_held_against_the_model(
    studio: Any, reason: str, verdict: Verdict, words: str
) -> None:
    silent = StandInModel(key="tiny", stats={"stopReason": reason}, behaviours=(Says(text=" "),))
    instance = studio(silent).load()
    with pytest.raises(Failure, match=words) as failed:
        instance.complete("2 + 3 =", max_tokens=4)
    assert failed.value.verdict is verdict
    instance.unload()


def test_no_prompt_tokens_counted_is_not_a_count(studio: Any) -> None:
    instance = studio(StandInModel(key="tiny", stats={"promptTokensCount": 0})).load()
    assert instance.complete("2 + 3 =", max_tokens=4).prompt_tokens is None
    instance.unload()


def test_an_instance_that_disappears_right_after_loading(studio: Any) -> None:
    own = studio(faults=(Fault(where="getModelInfo", kind="error", error=NOT_LOADED),))
    with pytest.raises(Failure) as failed:
        own.load()
    assert failed.value.verdict is Verdict.CRASHED


@pytest.mark.parametrize("kind", ["close_channel", "garbage"])
@pytest.mark.parametrize("where", ["load", "predict"])
def test_invalid_server_messages_are_not_the_models_fault(
    studio: Any, kind: Any, where: Any
) -> None:
    own = studio(faults=(Fault(where=where, kind=kind, text="{"),), load_timeout=5.0)
    with pytest.raises(Failure) as failed:
        own.load().complete("2 + 3 =", max_tokens=4)
    assert failed.value.verdict in (Verdict.ENGINE_ERROR, Verdict.UNREACHABLE)
    own.engine.sweep(lambda owner: True)


def test_a_load_that_finishes_after_its_timeout_is_unloaded(
    studio: Any, caplog: pytest.LogCaptureFixture
) -> None:
    own = studio(faults=(Fault(where="load_progress", kind="hang", after=0.5),), load_timeout=0.3)
    release = _when(own.server, lambda: len(own.server.named("listLoaded")) > 3, own.server.release)
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
    release = _when(own.server, lambda: len(own.server.named("listLoaded")) > 3, own.server.release)
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
    first, *rest = limits[2:]
    assert first == tokens / 50 > 2.0
    assert 2.0 in rest
    assert lmstudio.get_sync_api_timeout() == usual
    instance.unload()


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
    own.server.drop_connections()
    assert instance.complete("2 + 3 =", max_tokens=4).text.strip() == "5"
    own.server.drop_connections()
    instance.unload()
    own.server.drop_connections()
    own.load().unload()
    own.server.drop_connections()
    assert len(own.engine.models()) == 1


def test_a_restarted_server_has_lost_the_instance(studio: Any) -> None:
    own = studio()
    instance = own.load()
    own.server.restart()
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
    with pytest.raises(Failure, match="has not let us in for") as failed:
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


def test_sweep_unloads_only_instances_of_dead_owners(studio: Any) -> None:
    own = studio()
    mine = own.load()
    left = LmStudioEngine(own.server.host, owner="me-1-dead")
    stale = left.load(MODEL, 4096, Watched())
    left.link.drop()
    asked: list[str] = []

    def is_dead(owner: str) -> bool:
        asked.append(owner)
        return owner == "me-1-dead"

    assert own.engine.sweep(is_dead) == [stale.identifier]
    assert sorted(asked) == ["me-1", "me-1-dead"]
    assert own.ours() == [mine.identifier]
    mine.unload()


def test_a_leftover_that_cannot_be_unloaded_is_only_logged(
    studio: Any, caplog: pytest.LogCaptureFixture
) -> None:
    own = studio(faults=(Fault(where="unloadModel", kind="error", times=2, error=REFUSED),))
    stale = own.load()
    assert own.engine.sweep(lambda owner: True) == []
    assert f"may have {stale.identifier} still loaded" in caplog.text
    stale.unload()


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


def _when(
    server: LmStudioServer, condition: Callable[[], bool], action: Callable[[], None]
) -> threading.Thread:
    """Call `action` in another thread once `condition` holds."""

    def run() -> None:
        server.wait_for(condition)
        action()

    thread = threading.Thread(target=run)
    thread.start()
    return thread
