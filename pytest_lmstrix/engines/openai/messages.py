"""What OpenAI-compatible servers send: the fields of several dialects.

Sources: https://platform.openai.com/docs/api-reference, and the servers of vLLM
(https://docs.vllm.ai), SGLang (https://docs.sglang.ai) and llama.cpp
(https://github.com/ggml-org/llama.cpp/tree/master/tools/server).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from pytest_lmstrix.engines.openai_form import ToolCallPart


class Meta(Struct, frozen=True):
    """What llama.cpp adds to a listed model."""

    n_ctx: int | None = None
    n_ctx_train: int | None = None
    size: int | None = None


class ServerModel(Struct, frozen=True):
    """An entry of `/v1/models`."""

    id: str
    root: str | None = None
    """The weights, as vLLM and SGLang name them."""
    parent: str | None = None
    """The model that an adapter is for."""
    owned_by: str | None = None
    max_model_len: int | None = None
    """The context in force (vLLM, SGLang)."""
    meta: Meta | None = None


class Listing(Struct, frozen=True):
    """The answer of `/v1/models`."""

    data: tuple[ServerModel, ...]

    def find(self, name: str) -> ServerModel | None:
        return next((model for model in self.data if model.id == name), None)

    def context_of(self, name: str) -> int | None:
        """Return the context in force for a model or its parent, tokens; `None` if unknown."""
        model = self.find(name)
        if model is None:
            return None
        known = model.max_model_len or (model.meta and model.meta.n_ctx)
        if known:
            return known
        parent = self.find(model.parent) if model.parent not in (None, name) else None
        return (parent and parent.max_model_len) or None


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


class _Delta(Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCallPart, ...] | None = None


class Choice(Struct, frozen=True):
    """A part of a completion (`text`) or of a chat's answer (`delta`)."""

    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None

    @property
    def said(self) -> str:
        return self.text or (self.delta and self.delta.content) or ""

    @property
    def thought(self) -> str:
        return (self.delta and (self.delta.reasoning_content or self.delta.reasoning)) or ""

    @property
    def calls(self) -> tuple[ToolCallPart, ...]:
        return (self.delta and self.delta.tool_calls) or ()


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


class ServerError(Struct, frozen=True):
    """An error, in a field of its own or as the whole answer."""

    message: str
    type: str | None = None
    code: str | int | None = None

    @property
    def name(self) -> str | None:
        """The code for classification."""
        return self.code if isinstance(self.code, str) else self.type


class _Nested(Struct, frozen=True):
    error: ServerError | str


class _Detail(Struct, frozen=True):
    detail: str


def error_in(answer: bytes) -> ServerError | None:
    """Return the error in an answer, or `None` if there is none that is known."""
    try:
        error = msgspec.json.decode(answer, type=_Nested).error
        return ServerError(message=error) if isinstance(error, str) else error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    try:
        return msgspec.json.decode(answer, type=ServerError)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    try:
        return ServerError(message=msgspec.json.decode(answer, type=_Detail).detail)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
