"""Slow loads, crashes, silence, and replies that break off."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.ollama.client import OllamaClient
from tests.engines.ollama.loads import PROMPT, STORY, load, running
from tests.standin.lmstudio import Crashes, Says, StandInModel
from tests.standin.ollama import Quirks
from tests.standin.openai.canned import Canned, CannedServer


def test_a_slow_load_within_the_limit_is_a_load() -> None:
    with running(Quirks(load_seconds=0.5), load_timeout=20) as (server, engine):
        load(engine).unload()
        assert server.events == ["load tiny:latest 1024", "unload tiny:latest"]


def test_an_answer_without_any_line_is_an_error() -> None:
    model = StandInModel(key="tiny", behaviours=(Says(text=""),))
    with running(Quirks(unfinished=True), model) as (_, engine):
        instance = load(engine)
        with pytest.raises(Failure, match="without a last line") as failed:
            instance.complete(PROMPT, max_tokens=2)
    assert failed.value.verdict is Verdict.ENGINE_ERROR


def test_a_slow_load_times_out_and_is_aborted() -> None:
    with running(Quirks(load_seconds=20), load_timeout=0.2) as (server, engine):
        with pytest.raises(Failure) as failed:
            load(engine)
        assert server.events == ["aborted"]
        assert server.loaded == {}
    assert (failed.value.verdict, failed.value.phase) == (Verdict.TIMEOUT, "load")


@pytest.mark.parametrize(
    ("quirks", "verdict"),
    [
        (Quirks(error_after=1), Verdict.CRASHED),
        (Quirks(lost_after=1), Verdict.UNREACHABLE),
        (Quirks(frozen_after=1), Verdict.TIMEOUT),
        (Quirks(unfinished=True), Verdict.ENGINE_ERROR),
    ],
    ids=["error line", "connection lost", "silent", "no last line"],
)
def test_a_reply_that_breaks_off_is_a_failure(quirks: Quirks, verdict: Verdict) -> None:
    with running(quirks, reply_timeout=0.5) as (server, engine):
        instance = load(engine)
        with pytest.raises(Failure) as failed:
            instance.complete(PROMPT + STORY + "He had", max_tokens=4)
        instance.unload()
        assert server.loaded == {}
    assert failed.value.verdict is verdict


def test_a_crash_at_a_load_leaves_nothing() -> None:
    with running(None, StandInModel(key="tiny", behaviours=(Crashes(),))) as (server, engine):
        with pytest.raises(Failure) as failed:
            load(engine)
        assert failed.value.verdict is Verdict.CRASHED
        load(engine).unload()
        assert server.loaded == {}


def test_silence_after_the_first_token_has_its_own_limit() -> None:
    with running(Quirks(frozen_after=1), reply_timeout=0.3) as (_, engine):
        instance = load(engine, 8192)
        with pytest.raises(Failure, match=r"no sign of the model for 0\.3 s") as failed:
            instance.complete(STORY * 200 + "He had", max_tokens=4)
    assert failed.value.verdict is Verdict.TIMEOUT


@pytest.mark.parametrize(("times", "broken"), [(29, True), (31, False)])
def test_a_reply_of_equal_tokens_may_lack_its_last_line(times: int, broken: bool) -> None:
    text = "\n" * times
    model = StandInModel(key="tiny", behaviours=(Says(text=text, fragment_characters=1),))
    with running(Quirks(unfinished=True), model) as (_, engine):
        instance = load(engine)
        if broken:
            with pytest.raises(Failure, match="without a last line"):
                instance.complete(PROMPT, max_tokens=40)
        else:
            assert instance.complete(PROMPT, max_tokens=40).stop_reason is None


def test_an_error_in_mid_stream_is_one_wherever_its_field_is() -> None:
    lines = b'{"response":"\\"error\\": none"}\n{"status":500,"error":"unexpected EOF"}\n'
    with CannedServer({"/api/generate": Canned(body=lines)}) as server:
        client = OllamaClient(server.url)
        found = client.stream("/api/generate", {}, dict, prefill_seconds=9, silence_seconds=9)
        assert "none" in next(found)["response"]
        with pytest.raises(Failure, match="unexpected EOF"):
            next(found)
        client.close()
