"""What a loaded model replies, and what is measured of it."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from tests.engines.llamacpp.child_process.loads import FEW_SHOT, ModelLoader, Recorder

pytest.importorskip("xllamacpp")


def test_a_completion_is_measured(shared: LlamaCppInstance) -> None:
    prompt = "The river ran by the mill. " * 30
    reply = shared.complete(prompt + FEW_SHOT, max_tokens=4)
    assert reply.text.split()[0] == "5"
    assert reply.stop_reason == "length"
    assert reply.completion_tokens == 4
    assert reply.prompt_tokens == shared.count_tokens(prompt + FEW_SHOT) + shared.special_tokens
    assert (reply.ttft_seconds or 0) > 0
    assert (reply.prefill_tokens_per_second or 0) > 0
    assert (reply.decode_tokens_per_second or 0) > 0
    assert shared.complete(prompt + FEW_SHOT, max_tokens=4).text == reply.text


def test_a_shared_prefix_is_processed_once(shared: LlamaCppInstance) -> None:
    prefix = "A tale of three ships and a lighthouse. " * 20
    first = shared.complete(prefix + "The first", max_tokens=1)
    second = shared.complete(prefix + "Another", max_tokens=1)
    assert second.prompt_tokens is not None
    assert second.cached_prompt_tokens is not None
    assert second.cached_prompt_tokens > (first.cached_prompt_tokens or 0)
    assert second.prompt_tokens - second.cached_prompt_tokens < 10


def test_prefill_progress_is_reported_per_batch(loader: ModelLoader) -> None:
    progress = Recorder()
    instance = loader.load(512, progress)
    total = instance.complete("word " * 300, max_tokens=1).prompt_tokens
    instance.unload()
    assert total is not None
    assert progress.prefills[-1] == (total, total)
    done = [tokens for tokens, _ in progress.prefills]
    assert done == sorted(done)
    assert len(set(done)) >= 300 // 64


def test_a_chat_uses_the_template(shared: LlamaCppInstance) -> None:
    reply = shared.chat([Message(role="user", content="Say hello.")], max_tokens=12)
    assert reply.text
    assert reply.reasoning == ""
    assert (reply.prompt_tokens or 0) > shared.count_tokens("Say hello.")
    assert shared.chat([Message(role="user", content="Say hello.")], max_tokens=12).text == (
        reply.text
    )


def test_an_overlong_prompt_is_refused_and_the_instance_stays_usable(
    shared: LlamaCppInstance,
) -> None:
    with pytest.raises(Failure) as failure:
        shared.complete("word " * 3000, max_tokens=1)
    assert failure.value.verdict is Verdict.CONTEXT_TOO_LARGE
    assert failure.value.code == "exceed_context_size_error"
    assert shared.complete(FEW_SHOT, max_tokens=2).text.split()[0] == "5"


def test_a_reply_stops_at_the_context_limit(loader: ModelLoader) -> None:
    instance = loader.load(256)
    prompt = "one two " * 120
    free = 256 - instance.count_tokens(prompt)
    reply = instance.complete(prompt, max_tokens=1000)
    instance.unload()
    assert reply.stop_reason == "length"
    assert 0 < (reply.completion_tokens or 0) <= free + 1


@pytest.mark.parametrize(
    "text", ["a\u2028b\x85c\x0bd\x1ce", "data: [DONE]\n\nerror: {}", "\0", "🎉" * 9]
)
def test_any_text_is_transmitted_unchanged(shared: LlamaCppInstance, text: str) -> None:
    # The server repeats the prompt in its answer, unescaped.
    reply = shared.complete(text + FEW_SHOT, max_tokens=1)
    assert reply.prompt_tokens == shared.count_tokens(text + FEW_SHOT) + shared.special_tokens
