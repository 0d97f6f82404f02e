"""A model that a running server has: it was loaded by others, and stays loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from typing import Unpack

import msgspec

from pytest_lmstrix.core.classify import classify
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.at_once import Sharing
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.counting import KnownCounts, TokenCounter
from pytest_lmstrix.engines.openai.client import OpenAiClient, PathMissing
from pytest_lmstrix.engines.openai.collected import CollectedReply
from pytest_lmstrix.engines.openai.messages import Count
from pytest_lmstrix.engines.openai.refusals import AcceptedFields
from pytest_lmstrix.engines.openai_form import (
    EmbeddingAnswer,
    chat_fields,
    completion_fields,
    embedding_fields,
)
from pytest_lmstrix.engines.reasoning import with_reasoning_apart
from pytest_lmstrix.engines.reply_limit import ReplyLimit
from pytest_lmstrix.engines.request import ChatOptions, CompletionOptions, Embeddings, Unable

_SLOWEST_PREFILL = 50.0
"""Prompt tokens per second below which a prefill counts as hung: few servers report progress."""
_PAST_END = "ignore_eos"
"""llama.cpp, vLLM and SGLang know it; others ignore it, or refuse it by its name."""
_NO_USAGE = "the server neither has /tokenize nor reports the tokens of a prompt"


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model before the first request."""

    name: str
    context_length: int
    """In force as the server reports it, else as asked for; tokens."""
    is_reported: bool = False
    """Whether the server reports its context."""
    request_context: int | None = None
    """The part of it that one request gets, where the server reports that; tokens."""
    ignored_settings: tuple[str, ...] = ()
    is_listed: bool = False
    """Whether the server lists it: one that does not was never found to be there."""
    embeds: bool = False
    """Whether it is an embedding model."""
    capabilities: tuple[str, ...] = ()
    reports_prefill: bool = False
    """Whether it can report the progress of a prefill, as llama.cpp can."""


def _is_missing(failure: Failure) -> bool:
    """Whether a server does not have a model, of one that it had: it is gone since."""
    found = classify(failure.text, phase="load", code=failure.code)
    return failure.verdict is Verdict.CRASHED and found is Verdict.MODEL_NOT_FOUND


class OpenAiInstance:
    """One model of a server."""

    def __init__(
        self, client: OpenAiClient, served: ServedModel, progress: Progress, *,
        reply_timeout: float,
    ) -> None:  # fmt: skip
        self._client = client
        self._served = served
        self._progress = progress
        self._reply_timeout = reply_timeout
        self._unloaded = False
        self._sharing: Sharing | None = None
        """That of the requests at once that are running."""
        self._requests = 1
        """How many are."""
        self._only_chats = False
        self._accepted = AcceptedFields()
        self._past_end: dict[str, object] = {_PAST_END: True}
        self._text_field: str | None = "prompt"
        """The field of `/tokenize` with the text; `None` without that path."""
        # What a request gets, of which there is no doubt: the server itself divides its context.
        self.context_length = min(
            served.request_context or served.context_length, served.context_length
        )
        self._counter = TokenCounter(self._measure, self.context_length)
        self._counts = KnownCounts(self._count_tokens)
        self.ignored_settings = served.ignored_settings
        self.capabilities = served.capabilities

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the load, each `topic: text`."""
        found = []
        if not self._served.is_reported:
            found.append("context: the server does not report how much it has")
        if self.context_length < self._served.context_length:
            of_all = f"{self.context_length:,} of the {self._served.context_length:,} tokens"
            found.append(f"slots: a request gets {of_all} that the server has")
        if self._only_chats:
            found.append("prompts: the server has no completions, so all went through its template")
        if not self._accepted.takes_greedy:
            found.append("temperature: the server does not take 0, so answers are drawn at random")
        return tuple(found)

    def complete(
        self, prompt: str, *, max_tokens: int, temperature: float = 0.0,
        **options: Unpack[CompletionOptions],
    ) -> Reply:  # fmt: skip
        """Continue `prompt`: through the chat template where the server has no completions."""
        if not self._only_chats:
            body = {"prompt": prompt, **completion_fields(options)}
            try:
                return self._reply("/v1/completions", body, prompt, max_tokens, temperature)
            except PathMissing:
                self._only_chats = True
        message = Message(role="user", content=prompt)
        return self.chat([message], max_tokens=max_tokens, temperature=temperature, **options)

    def generate(self, prompt: str, *, max_tokens: int) -> Reply:
        """Continue `prompt` past an end of text, where the server can."""
        if not self._only_chats and self._past_end:
            body = {"prompt": prompt, **self._past_end}
            try:
                return self._reply("/v1/completions", body, prompt, max_tokens, 0.0)
            except PathMissing:
                self._only_chats = True
            except Failure as failure:
                if _PAST_END not in failure.text:
                    raise
                self._past_end = {}
        return self.complete(prompt, max_tokens=max_tokens)

    def chat(
        self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0,
        **options: Unpack[ChatOptions],
    ) -> Reply:  # fmt: skip
        """Answer `messages` through the model's chat template."""
        body = chat_fields(messages, options)
        texts = "\n".join(message.content for message in messages)
        try:
            reply = self._reply("/v1/chat/completions", body, texts, max_tokens, temperature)
        except PathMissing as error:
            text = f"the server has no chat completions: {error}"
            raise Failure(text, verdict=Verdict.UNSUPPORTED, phase="predict") from None
        return with_reasoning_apart(reply)

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Return the vectors of `texts`; see `Embeds`."""
        self._check_open()
        body = {"model": self._served.name, **embedding_fields(texts)}
        tokens = sum(len(text.encode()) for text in texts) / 2
        patience = max(self._reply_timeout, tokens / _SLOWEST_PREFILL)
        try:
            answer = self._client.post(
                "/v1/embeddings", body, EmbeddingAnswer, phase="predict", silence_seconds=patience
            )
        except PathMissing as error:
            raise Unable(f"the server gives no embeddings: {error}") from None
        return answer.embeddings()

    def at_once(self, asks: Sequence[Callable[[], Reply]]) -> list[Reply]:
        """Return the answers to requests of this instance, all sent at once; see `Engine`.

        Whether the server answers them at the same time is its own matter.
        """
        # Each has a limit of its own that allows for the others.
        self._sharing, self._requests = Sharing(math.inf), len(asks)
        try:
            return self._sharing.run(asks)
        finally:
            self._sharing, self._requests = None, 1

    def wake(self) -> None:
        """Send the shortest request, for which a server loads a model that is not in memory."""
        if self._served.embeds:
            with suppress(Unable):
                self.embed(["Hello"])
        else:
            self.complete("Hello", max_tokens=1)

    def count_tokens(self, text: str) -> int:
        """Count the tokens of `text` by `/tokenize`, else by the usage that requests report.

        Raises:
            Failure: `inconclusive` where the server does neither.
        """
        self._check_open()
        return self._counts(text)

    def _count_tokens(self, text: str) -> int:
        while self._text_field is not None:
            count = self._tokenized(text, self._text_field)
            if count is not None:
                return count
            # llama.cpp has another field than vLLM and SGLang.
            self._text_field = "content" if self._text_field == "prompt" else None
        return self._counter.count(text)

    def unload(self) -> None:
        """Use it no longer; it stays loaded, for it is not ours."""
        self._unloaded = True

    def _check_open(self) -> None:
        if self._unloaded:
            text = "the model is no longer in use here"
            raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="predict")

    def _tokenized(self, text: str, field: str) -> int | None:
        body = {"model": self._served.name, field: text, "add_special_tokens": False}
        try:
            answer = self._client.post("/tokenize", body, Count, phase="predict")
        except PathMissing:
            return None
        except Failure as failure:
            if failure.verdict is Verdict.ENGINE_ERROR:  # it wants another field
                return None
            raise
        if field == "prompt":
            return answer.count
        return None if answer.tokens is None else len(answer.tokens)

    def _measure(self, piece: str) -> int:
        embeds = self._served.embeds
        asked = self.embed([piece]) if embeds else self.complete(piece, max_tokens=1)
        tokens = asked.prompt_tokens
        if tokens is None:
            raise Failure(_NO_USAGE, verdict=Verdict.INCONCLUSIVE, phase="predict")
        return tokens

    def _reply(
        self,
        path: str,
        prompt: Mapping[str, object],
        text: str,
        max_tokens: int,
        temperature: float,
    ) -> Reply:
        self._check_open()
        body = {"model": self._served.name, **prompt}
        if self._served.reports_prefill:
            body["return_progress"] = True
        while True:
            fields = self._accepted.of(max_tokens, temperature)
            try:
                return self._streamed(path, {**body, **fields}, text, max_tokens)
            except Failure as failure:
                if self._accepted.learn(failure.text, temperature):
                    continue
                if not self._served.is_listed and _is_missing(failure):
                    raise Failure(
                        failure.text, verdict=Verdict.MODEL_NOT_FOUND, phase="load"
                    ) from None
                raise

    def _streamed(self, path: str, body: Mapping[str, object], text: str, max_tokens: int) -> Reply:
        # Few texts have more than one token for two bytes.
        sharing, limit = self._sharing, self._reply_timeout
        patience = max(limit, self._requests * len(text.encode()) / 2 / _SLOWEST_PREFILL)
        collected = CollectedReply(ReplyLimit("the server", max_tokens))
        events = self._client.events(
            path,
            body,
            prefill_seconds=patience,
            silence_seconds=patience if sharing else limit,
        )
        with closing(events):  # a reply that is given up must not be computed further
            for event in events:
                if sharing is not None and sharing.given_up.is_set():
                    text = "given up, since another of the requests at once has failed"
                    raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="predict")
                if event is not None and (prefill := event.prompt_progress) is not None:
                    if sharing is not None:
                        sharing.prefill(self._progress, prefill.processed, prefill.total)
                    else:
                        self._progress.prefill(prefill.processed, prefill.total)
                collected.add(event)
        return collected.reply(self._client.key.redact)
