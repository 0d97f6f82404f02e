"""What OpenAI-compatible servers answer: the fields of several dialects.

Sources: https://platform.openai.com/docs/api-reference, and the servers of vLLM
(https://docs.vllm.ai), SGLang (https://docs.sglang.ai) and llama.cpp
(https://github.com/ggml-org/llama.cpp/tree/master/tools/server).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pytest_lmstrix.engines.openai_form import ToolCallPart


class Count(Struct, frozen=True):
    """The answer of `/tokenize`; llama.cpp gives no count."""

    tokens: list[Any] | None = None
    count: int | None = None


class _Details(Struct, frozen=True):
    cached_tokens: int | None = None


class Usage(Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class Timings(Struct, frozen=True):
    """llama.cpp's measurements."""

    cache_n: int | None = None
    prompt_n: int | None = None
    predicted_n: int | None = None
    prompt_per_second: float | None = None
    predicted_per_second: float | None = None


class _Said(Struct, frozen=True):
    """The text of a model: a piece of it, or all."""

    role: str | None = None
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: tuple[ToolCallPart, ...] | None = None


class Choice(Struct, frozen=True):
    """A part of a completion (`text`) or of a chat's answer (`delta`), or all of it (`message`)."""

    text: str | None = None
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None

    @property
    def said(self) -> str:
        return self.text or _text(self._chat.content)

    @property
    def thought(self) -> str:
        return _text(self._chat.reasoning_content) or _text(self._chat.reasoning)

    @property
    def calls(self) -> tuple[ToolCallPart, ...]:
        calls = self._chat.tool_calls or ()
        if self.message is None:
            return calls
        return tuple(replace(call, index=number) for number, call in enumerate(calls))

    @property
    def is_sign(self) -> bool:
        """Whether it shows that the model computes: a role alone may come before the prefill."""
        return self._chat.role is None or bool(
            self.said or self.thought or self.calls or self.finish_reason
        )

    @property
    def _chat(self) -> _Said:
        return self.delta or self.message or _Said()


def _text(content: Any) -> str:
    """Return content as text; some servers send a list of parts, of which some have text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return "".join(_text(part.get("text")) for part in parts if isinstance(part, dict))


class PrefillProgress(Struct, frozen=True):
    """llama.cpp's report of a prefill, tokens."""

    total: int
    processed: int


class StreamEvent(Struct, frozen=True):
    """An event of a streamed answer."""

    choices: tuple[Choice, ...] | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    prompt_progress: PrefillProgress | None = None

    @property
    def is_sign(self) -> bool:
        """Whether it shows that the model computes."""
        if self.choices:
            return any(choice.is_sign for choice in self.choices)
        return self.usage is not None or self.timings is not None
