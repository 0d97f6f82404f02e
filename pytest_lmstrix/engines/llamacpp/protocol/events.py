"""The events of a streamed reply of llama.cpp's server."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from pytest_lmstrix.engines.openai_form import ToolCallPart


class PrefillState(Struct):
    """How far a prompt is processed."""

    total: int
    processed: int
    """Tokens, those found in the KV cache included."""


class ServerTimings(Struct, kw_only=True):
    """Counts and rates of one reply."""

    cache_n: int | None = None
    """Missing in servers before September 2025."""
    prompt_n: int
    predicted_n: int
    prompt_per_second: float
    predicted_per_second: float


class ReplyDelta(Struct, kw_only=True):
    """A piece of a reply."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCallPart, ...] | None = None


class ReplyChoice(Struct, kw_only=True):
    """A piece of the only reply, in OpenAI's form."""

    delta: ReplyDelta
    finish_reason: str | None = None


class _Token(Struct):
    token: str
    logprob: float


class _Ranked(Struct):
    top_logprobs: tuple[_Token, ...] = ()


class ReplyEvent(ReplyDelta, kw_only=True):
    """An event of `/completion`, where it is a delta itself, or of `/v1/chat/completions`."""

    choices: tuple[ReplyChoice, ...] = ()
    stop_type: str | None = None
    prompt_progress: PrefillState | None = None
    completion_probabilities: tuple[_Ranked, ...] = ()
    timings: ServerTimings | None = None
    error: Any = None

    @property
    def likeliest(self) -> dict[str, float]:
        """The log-probabilities of the likeliest tokens at its place."""
        ranked = self.completion_probabilities[:1]
        return {each.token: each.logprob for place in ranked for each in place.top_logprobs}
