"""The dialects of OpenAI-compatible servers, and how one misbehaves."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Dialect(StrEnum):
    """The server that it stands in for."""

    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMACPP = "llamacpp"
    PLAIN = "plain"
    """Only what OpenAI documents: no context in the listing, and no `/tokenize`."""


class Faults(Struct, frozen=True, kw_only=True):
    """Faults of a server; the default has none."""

    no_completions: bool = False
    """Whether it only chats."""
    no_usage: bool = False
    """Whether replies have no usage."""
    no_tokenize: bool = False
    refuses_stream_options: bool = False
    refuses_ignore_eos: bool = False
    wants_completion_tokens: bool = False
    """Whether it refuses `max_tokens`, as OpenAI does for its newer models."""
    refuses_greedy: bool = False
    """Whether it refuses a temperature of 0, as Text Generation Inference does."""
    paced: bool = False
    """Whether replies take the time that its model's rates give them."""
    no_listing: bool = False
    context: int | None = None
    """Listed context instead of the one in force."""
    busy: int = 0
    """The first predictions that get status `busy_status`."""
    busy_status: int = 429
    retry_after: str | None = None
    cut: int = 0
    """The first predictions whose connection is lost in mid-answer."""
    ends_early: bool = False
    """Whether answers end in the middle, as if they were complete."""
    error_in_stream: bool = False
    freezes: bool = False
    """Whether nothing more comes after the first piece."""
    echoes_key: bool = False
    """Whether errors and answers hold the key that the client sent."""
    refuses: tuple[str, ...] = ()
    """Fields of a request that it does not support."""
    refuses_images: bool = False
    redirect: str | None = None
    """Where every request is sent instead."""
