"""A llama.cpp server that holds one model: requests, answers and causes of an exit.

Source: the README of llama.cpp's server, https://github.com/ggml-org/llama.cpp/tree/master/tools/server
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Unpack

import httpx
from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, Reply
from pytest_lmstrix.core.verdicts import Phase, Verdict
from pytest_lmstrix.engines.at_once import Sharing
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.counting import KnownCounts
from pytest_lmstrix.engines.llamacpp.causes import DEATH_SECONDS, ServerProcess, death, silence
from pytest_lmstrix.engines.llamacpp.protocol.answers import (
    decoded_answer,
    parsed_answer,
    refusal_in,
)
from pytest_lmstrix.engines.llamacpp.protocol.events import ReplyChoice, ReplyEvent
from pytest_lmstrix.engines.openai_form import (
    EmbeddingAnswer,
    LlamaCppProperties,
    ToolCallParts,
    chat_fields,
    embedding_fields,
)
from pytest_lmstrix.engines.reply_limit import ReplyLimit
from pytest_lmstrix.engines.request import (
    ChatOptions,
    CompletionOptions,
    Embeddings,
    Unable,
)

_SLOWEST_PREFILL = 50.0
"""Tokens per second below which the prefill of a text to embed counts as hung."""
_REFUSAL_BYTES = 1_000_000
"""Read of the answer to a refused request."""
_RANKED = 40
"""Likeliest tokens that are asked for."""


class _Settings(Struct):
    n_ctx: int


class _Properties(LlamaCppProperties, frozen=True, kw_only=True):
    default_generation_settings: _Settings


class _Tokens(Struct):
    tokens: list[int]


class LlamaCppInstance:
    """A server process that holds one model.

    A silence beyond the limit and an interrupt end the process: nothing is left computing.
    """

    def __init__(
        self,
        child: ServerProcess,
        client: httpx.Client,
        path: Path,
        progress: Progress,
        template_error: Failure | None = None,
        *,
        keep_log: Callable[[Failure], Failure] = lambda failure: failure,
        notes: tuple[str, ...] = (),
        most_context: int | None = None,
        body: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Take over `child`; `template_error` is why it runs without the model's chat template.

        `keep_log` is called for a failure of the server after its load; `most_context` is all that
        a request can count on, tokens; `body` is part of every request.
        """
        self._child = child
        self._client = client
        self._reply_timeout = client.timeout.read
        self._path = path
        self._progress = progress
        self._template_error = template_error
        self._keep_log = keep_log
        self.notes = notes
        self._body = body
        self._phase: Phase = "load"
        self._sharing: Sharing | None = None
        """That of the requests at once that are running."""
        with self._watched():
            properties = decoded_answer(client.get("/props"), _Properties)
        self.capabilities = properties.capabilities
        granted = properties.default_generation_settings.n_ctx
        self.context_length = granted if most_context is None else min(granted, most_context)
        """Granted to a request, tokens: rounded up to 256 and cut to what the model was trained
        for."""
        self._counts = KnownCounts(lambda text: len(self._tokens(text)))
        self._phase = "predict"

    @cached_property
    def special_tokens(self) -> int:
        """Tokens such as BOS that the model wants before every prompt.

        They are counted in a reply's `prompt_tokens`, but not by `count_tokens`.
        """
        return len(self._tokens("", add_special=True))

    @property
    def peak_memory_bytes(self) -> int | None:
        """Largest resident memory of the server so far, bytes: see `Child.peak_memory_bytes`."""
        self._child.activity()
        return self._child.peak_memory_bytes

    def complete(
        self, prompt: str, *, max_tokens: int, temperature: float = 0.0,
        **options: Unpack[CompletionOptions],
    ) -> Reply:  # fmt: skip
        """Continue `prompt`; see `Instance.complete`."""
        names = {"schema": "json_schema"}
        more = {names.get(name, name): value for name, value in options.items()}
        body = {"prompt": prompt, "n_predict": max_tokens, "temperature": temperature, **more}
        return self._reply("/completion", body, max_tokens)

    def generate(self, prompt: str, *, max_tokens: int) -> Reply:
        """Continue `prompt` past an end of text; see `Engine`."""
        body = {"prompt": prompt, "n_predict": max_tokens, "temperature": 0.0, "ignore_eos": True}
        return self._reply("/completion", body, max_tokens)

    def rank(self, prompt: str) -> Reply:
        """Return one token after `prompt`, and the log-probabilities of the likeliest ones."""
        body = {"prompt": prompt, "n_predict": 1, "temperature": 0.0, "n_probs": _RANKED}
        return self._reply("/completion", body, 1)

    def chat(
        self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0,
        **options: Unpack[ChatOptions],
    ) -> Reply:  # fmt: skip
        """Answer `messages`; see `Instance.chat`."""
        if (failure := self._template_error) is not None:
            raise Failure(failure.text, verdict=failure.verdict, phase="predict")
        if options.get("images") and "vision" not in self.capabilities:
            raise Unable("images need the projector of a model, and none is loaded")
        body = {"max_tokens": max_tokens, "temperature": temperature}
        body |= chat_fields(messages, options)
        return self._reply("/v1/chat/completions", body, max_tokens)

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Return the vectors of `texts`; see `Embeds`."""
        # Without progress: a text has at most a token for two bytes, with few exceptions.
        tokens = sum(len(text.encode()) for text in texts) / 2
        patience = max(self._client.timeout.read or 0.0, tokens / _SLOWEST_PREFILL)
        body = {**self._body, **embedding_fields(texts)}
        with self._watched():
            response = self._client.post("/v1/embeddings", json=body, timeout=patience)
            return decoded_answer(response, EmbeddingAnswer).embeddings()

    def at_once(self, asks: Sequence[Callable[[], Reply]]) -> list[Reply]:
        """Return the answers to requests of this instance, all sent at once; see `Engine`."""
        with self._watched():
            self._sharing = Sharing(self._reply_timeout or math.inf)
            try:
                return self._sharing.run(asks, end=self._child.end)
            except Failure as failure:
                if failure.verdict is not Verdict.TIMEOUT:
                    raise
                raise self._kept(failure) from None
            finally:
                self._sharing = None

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`, names of special tokens in it read as such, none added."""
        return self._counts(text)

    def unload(self) -> None:
        """End the process and confirm its exit; idempotent."""
        self._client.close()
        if left := self._child.end():
            raise Failure.from_engine(f"processes {left} do not end", phase="unload")

    def _tokens(self, text: str, *, add_special: bool = False) -> list[int]:
        body = {**self._body, "content": text, "add_special": add_special}
        with self._watched():
            return decoded_answer(self._client.post("/tokenize", json=body), _Tokens).tokens

    def _reply(self, url: str, body: Mapping[str, object], max_tokens: int) -> Reply:
        text, reasoning, stop, timings = "", "", "", None
        limit, calls = ReplyLimit("llama.cpp", max_tokens), ToolCallParts()
        ttft_seconds: float | None = None
        likeliest: dict[str, float] = {}
        started = time.monotonic()
        with self._watched():
            for event in self._events(url, body, limit):
                if (prefill := event.prompt_progress) is not None:
                    done, total = prefill.processed, prefill.total
                    if self._sharing is None:
                        self._progress.prefill(done, total)
                    else:
                        self._sharing.prefill(self._progress, done, total)
                    self._child.activity()
                choice = event.choices[0] if event.choices else ReplyChoice(delta=event)
                said, thought = choice.delta.content or "", choice.delta.reasoning_content or ""
                called = "".join(map(calls.add, choice.delta.tool_calls or ()))
                if said or thought or called:
                    limit.count(said + thought + called)
                text += said
                reasoning += thought
                if ttft_seconds is None and (text or reasoning):
                    ttft_seconds = time.monotonic() - started
                likeliest = likeliest or event.likeliest
                stop = event.stop_type or choice.finish_reason or stop
                timings = event.timings or timings
        if timings is None:
            raise Failure.from_engine("llama.cpp broke off its reply", phase="predict")
        if timings.cache_n is None:
            raise Failure(
                "this llama.cpp is too old: it does not count cached prompt tokens; update it",
                verdict=Verdict.HOST_TROUBLE,
                phase="predict",
                final=True,
            )
        return Reply(
            text=text,
            reasoning=reasoning,
            tool_calls=calls.calls(),
            stop_reason="length" if stop in ("limit", "length") else "stop",
            prompt_tokens=timings.cache_n + timings.prompt_n,
            cached_prompt_tokens=timings.cache_n,
            completion_tokens=timings.predicted_n,
            likeliest=likeliest,
            ttft_seconds=ttft_seconds,
            prefill_seconds=timings.prompt_n / speed
            if (speed := timings.prompt_per_second)
            else None,
            prefill_tokens_per_second=speed or None,
            decode_tokens_per_second=timings.predicted_per_second or None,
        )

    def _events(
        self, url: str, body: Mapping[str, object], limit: ReplyLimit
    ) -> Iterator[ReplyEvent]:
        fixed = {"stream": True, "return_progress": True, "cache_prompt": True}
        body = {**body, **fixed, **self._body}
        sharing = self._sharing
        timeout = httpx.Timeout(self._reply_timeout, read=None if sharing else self._reply_timeout)
        with self._client.stream("POST", url, json=body, timeout=timeout) as response:
            if response.is_error:
                raise refusal_in(next(response.iter_bytes(_REFUSAL_BYTES), b""))
            # The last event repeats the prompt, and JSON escapes a character in up to six bytes.
            most_bytes = 6 * (len(response.request.content) + limit.most_characters)
            moved = time.monotonic()
            for line in _lines(response, most_bytes, limit):
                if not line.strip() or line.startswith(b":"):  # a ping, as of a router's servers
                    if sharing is None and time.monotonic() - moved > (timeout.read or math.inf):
                        raise httpx.ReadTimeout("nothing but pings")
                    continue
                moved = time.monotonic()
                if sharing is not None:
                    sharing.moved()
                field, _, data = line.partition(b": ")
                if field == b"error":
                    raise refusal_in(data)
                if field == b"data" and data != b"[DONE]":
                    event = parsed_answer(data, ReplyEvent)
                    if event.error is not None:
                        raise refusal_in(data)
                    yield event

    def _kept(self, failure: Failure) -> Failure:
        """Keep the log of a server that failed after its load."""
        return failure if self._phase == "load" else self._keep_log(failure)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Raise errors of a request as `Failure`; cancel its computation.

        Those of requests at once are raised as they are, since they have one cause.
        """
        if self._sharing is not None:
            yield
            return
        if self._client.is_closed:
            raise Failure("the model is unloaded", verdict=Verdict.ENGINE_ERROR, phase=self._phase)
        self._child.forget_log()
        try:
            yield
        except httpx.TimeoutException as error:
            self.unload()
            silent = silence(self._reply_timeout, "answering", self._phase)
            raise self._kept(silent) from error
        except httpx.TransportError as error:
            if self._child.wait(DEATH_SECONDS) is not None:
                raise self._kept(death(self._child, self._path, self._phase)) from error
            lost = f"connection to llama.cpp lost: {type(error).__name__} {error}"
            raise Failure.from_engine(lost, phase=self._phase) from error
        except Exception:
            raise
        except BaseException:
            self._child.end()
            raise


def _lines(response: httpx.Response, most_bytes: int, limit: ReplyLimit) -> Iterator[bytes]:
    """Yield the lines of a response, none of them longer than `most_bytes`."""
    # Not `iter_lines`, which also splits at U+2028 and others, which a model may write.
    rest = bytearray()
    for chunk in response.iter_bytes():
        rest += chunk
        if b"\n" in chunk:
            *lines, rest = rest.split(b"\n")
            yield from map(bytes, lines)
        if len(rest) > most_bytes:
            raise limit.exceeded()
