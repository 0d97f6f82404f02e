"""Granted contexts, counted tokens and load settings, in newer and older releases."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LoadSettings, Message, Model
from pytest_lmstrix.core.verdicts import Verdict
from tests.engines.ollama.loads import PROMPT, STORY, TINY, load, running
from tests.standin.lmstudio import Reasons, StandInModel
from tests.standin.lmstudio.models import brain
from tests.standin.ollama import Quirks


def test_every_request_names_the_same_context_which_does_not_shift() -> None:
    with running() as (server, engine):
        instance = load(engine)
        instance.complete(PROMPT, max_tokens=2)
        instance.chat([Message(role="user", content="Say hello")], max_tokens=4)
        instance.count_tokens(STORY)
        instance.unload()
        assert server.events == ["load tiny:latest 1024", "unload tiny:latest"]
        asked = [body for _, body in server.requests if body.get("keep_alive")]
        assert len(asked) >= 4
        assert all(body["shift"] is False for body in asked)


@pytest.mark.parametrize(
    ("quirks", "granted"),
    [
        (Quirks(grants_half=True), 512),
        (Quirks(release=(0, 9, 0)), 1024),
    ],
    ids=["half", "not reported"],
)
def test_the_granted_context_is_read_back(quirks: Quirks, granted: int) -> None:
    with running(quirks) as (_, engine):
        instance = load(engine)
        assert instance.context_length == granted
        noted = any(note.startswith("context: ") for note in instance.notes)
        assert noted == (quirks.release < (0, 15, 5))


@pytest.mark.parametrize(
    ("share", "note"), [(1.0, "gpu: all"), (0.25, "gpu: 25% of it; 75%"), (0.0, "gpu: none")]
)
def test_the_share_on_the_gpu_is_noted(share: float, note: str) -> None:
    with running(Quirks(vram_share=share)) as (_, engine):
        instance = load(engine)
        assert instance.notes[0].startswith(note)
        assert instance.peak_memory_bytes == TINY.needed_bytes(1024)


@pytest.mark.parametrize(
    "release", [(0, 12, 0), (0, 30, 11)], ids=["cuts to the context", "cuts to half"]
)
def test_a_prompt_that_is_cut_without_an_error_is_found(release: tuple[int, int, int]) -> None:
    quirks = Quirks(release=release, grants_half=True, reports_asked=True)
    with running(quirks) as (server, engine):
        instance = load(engine)
        assert instance.context_length == 1024
        with pytest.raises(Failure) as failed:
            instance.complete(STORY * 50, max_tokens=1)
    refused = release >= (0, 12, 6)
    expected = Verdict.CONTEXT_TOO_LARGE if refused else Verdict.PROMPT_TRUNCATED
    assert failed.value.verdict is expected
    assert all(body["truncate"] is False for _, body in server.requests if "prompt" in body)


def test_long_texts_are_counted_in_pieces_within_the_context() -> None:
    with running() as (_, engine):
        instance = load(engine, 512)
        assert instance.count_tokens(STORY * 200) == brain.count_tokens(STORY * 200)
        assert instance.count_tokens("") == 0


def test_texts_that_begin_alike_are_measured_once() -> None:
    with running() as (server, engine):
        instance = load(engine, 4096)
        instance.count_tokens(STORY * 200)
        before = len(server.requests)
        instance.count_tokens(STORY * 200 + "And then he went home.")
        assert len(server.requests) == before + 1


@pytest.mark.parametrize("release", [(0, 3, 14), (0, 30, 0)])
def test_releases_that_do_not_count_cached_tokens_are_named(
    release: tuple[int, int, int],
) -> None:
    with running(Quirks(release=release)) as (_, engine):
        instance = load(engine)
        assert "5" in instance.complete(PROMPT, max_tokens=4).text
        assert instance.complete(PROMPT, max_tokens=4).prompt_tokens is None
        with pytest.raises(Failure, match="does not count cached prompt tokens") as failed:
            instance.count_tokens(STORY)
    assert failed.value.verdict is Verdict.INCONCLUSIVE


def test_thinking_is_switched_off_in_chats() -> None:
    thinker = StandInModel(key="tiny", behaviours=(Reasons(tokens=50),))
    with running(None, thinker) as (server, engine):
        reply = load(engine).chat([Message(role="user", content="Say hello")], max_tokens=10)
    assert ("Hello" in reply.text, reply.reasoning) == (True, "")
    assert server.requests[-2][1]["think"] is False or server.requests[-1][1]["think"] is False


def test_a_setting_of_the_whole_server_is_refused() -> None:
    model = Model(id="tiny", engine="ollama", load=LoadSettings(kv_cache_type="q8_0"))
    with running() as (server, engine):
        with pytest.raises(Failure, match="does not support load setting kv_cache_type"):
            load(engine, model=model)
        assert server.events == []


def test_load_settings_are_options() -> None:
    model = Model(id="tiny", engine="ollama", load=LoadSettings(gpu_layers=0, threads=2))
    with running() as (server, engine):
        load(engine, model=model)
        (body,) = (body for path, body in server.requests if path == "/api/generate")
    assert body["options"] == {"num_ctx": 1024, "num_gpu": 0, "num_thread": 2}
