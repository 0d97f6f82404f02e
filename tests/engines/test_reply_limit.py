"""A reply is bounded while it arrives, however much an engine sends."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine
from tests.standin.lmstudio import LmStudioServer, Says, StandInModel

FRAGMENT = 20_000_000
SENT = 1 << 16
"""Bytes of a fragment that arrive at once."""


class Silent:
    """A `Progress` that does nothing."""

    def __call__(self, fraction: float, /) -> None: ...

    def prefill(self, done: int, total: int) -> None: ...


class Sender:
    """A llama.cpp server that answers every prompt with the same bytes."""

    def __init__(self, answer: Iterator[bytes], status: int = 200) -> None:
        self.sent = 0
        self._answer = answer
        self._status = status
        child: Any = SimpleNamespace(forget_log=list, activity=list, wait=lambda seconds: None)
        client = httpx.Client(base_url="http://llama", transport=httpx.MockTransport(self._reply))
        self.instance = LlamaCppInstance(child, client, Path("model.gguf"), Silent())

    def _reply(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/props":
            return httpx.Response(200, json={"default_generation_settings": {"n_ctx": 512}})
        if request.url.path == "/tokenize":
            return httpx.Response(200, json={"tokens": []})
        return httpx.Response(self._status, content=self._counted())

    def _counted(self) -> Iterator[bytes]:
        for piece in self._answer:
            self.sent += len(piece)
            yield piece


def events(count: int, characters: int, kind: str = "content") -> Iterator[bytes]:
    """Events of `characters` each, in pieces as they arrive."""
    for _ in range(count):
        yield b'data: {"%s": "' % kind.encode()
        for _ in range(characters // SENT):
            yield b"x" * SENT
        yield b'"}\n\n'


@pytest.mark.parametrize("kind", ["content", "reasoning_content"])
def test_llama_cpp_sends_no_more_than_a_reply_may_have(kind: str) -> None:
    sender = Sender(events(20, FRAGMENT, kind))
    tracemalloc.start()
    try:
        with pytest.raises(Failure, match="sends more than 104,000 characters") as failed:
            sender.instance.complete("6 + 3 =", max_tokens=4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert failed.value.verdict is Verdict.ENGINE_ERROR
    assert sender.sent < 1_000_000
    assert peak < 5_000_000


def test_a_llama_cpp_reply_in_small_events_that_does_not_end_is_ended() -> None:
    short = b'data: {"content": "x"}\n\n'
    sender = Sender(short for _ in range(1_000_000))
    with pytest.raises(Failure, match="goes on answering beyond the 4 tokens"):
        sender.instance.complete("6 + 3 =", max_tokens=4)
    assert sender.sent < 1_000_000


def test_the_last_event_of_llama_cpp_may_repeat_a_long_prompt() -> None:
    prompt = "\x01" * 1_000_000
    timings = {
        "cache_n": 0, "prompt_n": 1, "predicted_n": 1, "prompt_per_second": 1.0,
        "predicted_per_second": 1.0,
    }  # fmt: skip
    last = json.dumps({"content": " 9", "prompt": prompt, "timings": timings}).encode()
    sender = Sender(iter([b"data: " + last + b"\n\n"]))
    assert sender.instance.complete(prompt, max_tokens=4).text == " 9"


def test_a_refusal_of_llama_cpp_is_read_up_to_a_limit() -> None:
    sender = Sender((b"x" * SENT for _ in range(1_000)), status=500)
    with pytest.raises(Failure, match=r"llama\.cpp refused: xxx"):
        sender.instance.complete("6 + 3 =", max_tokens=4)
    assert sender.sent <= 1_000_000 + SENT


def test_lm_studio_sends_no_more_than_a_reply_may_have() -> None:
    huge = Says(text="x" * 4_000_000, fragment_characters=1_000_000)
    with LmStudioServer([StandInModel(key="tiny", behaviours=(huge,))]) as server:
        engine = LmStudioEngine(server.host)
        instance = engine.load(Model(id="tiny", engine="lmstudio"), 512, Silent())
        with pytest.raises(Failure, match="sends more than 104,000 characters") as failed:
            instance.complete("6 + 3 =", max_tokens=4)
        assert failed.value.verdict is Verdict.ENGINE_ERROR
        # The connection is gone, and with it what else was sent; the instance is not.
        assert instance.count_tokens("6 + 3 =") == 4
        instance.unload()
        assert server.loaded() == ()
        engine.close()
