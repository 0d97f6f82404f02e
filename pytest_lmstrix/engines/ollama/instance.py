"""A model loaded in Ollama by us."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import msgspec
from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, ModelFacts, Reply, ToolCall
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.counting import TokenCounter
from pytest_lmstrix.engines.ollama.listing import Running, gpu_note
from pytest_lmstrix.engines.ollama.messages import turns_of
from pytest_lmstrix.engines.reasoning import with_reasoning_apart
from pytest_lmstrix.engines.reply_limit import ReplyLimit
from pytest_lmstrix.engines.request import ChatOptions, CompletionOptions, Unable

if TYPE_CHECKING:
    from pytest_lmstrix.engines.ollama.engine import OllamaEngine

_SLOWEST_PREFILL = 50.0
"""Prompt tokens per second below which a prefill counts as hung: Ollama reports no progress."""
_MEASURABLE_TOKENS = 512
"""With fewer, a prefill rate measures the overhead more than the prefill."""
_REPEATED = 30
"""After more equal fragments in a row Ollama ends a reply without its last line."""
_NANOSECONDS = 1e9
_FIRST_WITH_SCHEMAS = (0, 5, 0)


class OllamaLoad(Struct, frozen=True, kw_only=True):
    """What is known of a load when it has succeeded."""

    path: Path
    """The note of it."""
    running: Running
    body: Mapping[str, Any]
    """The fields of every request: without the same options Ollama would load it again."""
    facts: ModelFacts | None
    evicted: tuple[str, ...] = ()
    """Models of other clients that are no longer in memory."""


class _Function(Struct, frozen=True):
    name: str = ""
    arguments: Any = None


class _Called(Struct, frozen=True):
    function: _Function = _Function()
    id: str = ""


class _Said(Struct):
    content: str = ""
    thinking: str = ""
    tool_calls: tuple[_Called, ...] | None = None


class _Line(Struct):
    """A line of a streamed reply; durations in nanoseconds, zeros are left out."""

    response: str = ""
    thinking: str = ""
    message: _Said | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class OllamaInstance:
    """The one instance of a model in Ollama, as long as no other client takes it."""

    def __init__(self, engine: OllamaEngine, loaded: OllamaLoad, progress: Progress) -> None:
        self._engine = engine
        self._loaded = loaded
        self._progress = progress
        self._sent: list[str] = []
        self._unloaded = False
        asked: int = loaded.body["options"]["num_ctx"]
        self.context_length = loaded.running.context_length or asked
        """Granted, tokens; as far as this release reports it."""
        if not self._reports_granted and loaded.facts and loaded.facts.context_limit:
            self.context_length = min(self.context_length, loaded.facts.context_limit)
        self._counter = TokenCounter(self._measure, self.context_length)

    @property
    def peak_memory_bytes(self) -> int | None:
        """Memory that Ollama reports for the loaded model, the GPU's included."""
        return self._loaded.running.size

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the load, each `topic: text`."""
        found = []
        if (note := gpu_note(self._loaded.running)) is not None:
            found.append(note)
        if not self._reports_granted:
            version = self._engine.version
            found.append(f"context: Ollama {version} does not report what it grants of it")
        found += (f"evicted: {name}, which another client had loaded"
                  for name in self._loaded.evicted)  # fmt: skip
        return tuple(found)

    def complete(
        self, prompt: str, *, max_tokens: int, temperature: float = 0.0,
        **options: Unpack[CompletionOptions],
    ) -> Reply:  # fmt: skip
        """Continue `prompt` as it is, without the model's chat template."""
        body = {"prompt": prompt, "raw": True, **self._fields(options)}
        return self._predict("/api/generate", body, (prompt,), max_tokens, temperature)

    def generate(self, prompt: str, *, max_tokens: int) -> Reply:
        """Continue `prompt`, and leave the KV cache as it is: tokens are not counted afterwards.

        Ollama has no option to go on past an end of text.
        """
        body = {"prompt": prompt, "raw": True}
        reply = self._reply("/api/generate", body, prompt, max_tokens, 0.0)
        return msgspec.structs.replace(reply, prefill_tokens_per_second=None)

    def chat(
        self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0,
        **options: Unpack[ChatOptions],
    ) -> Reply:  # fmt: skip
        """Answer `messages` through the model's chat template.

        A thinking model answers at once unless `thinking` is asked for. Thoughts that Ollama leaves
        in the text are separated by their `<think>` tags.
        """
        images = options.get("images", ())
        body: dict[str, object] = {"messages": turns_of(messages, images), **self._fields(options)}
        if images:
            self._check_capability("vision", "see images")
        if tools := options.get("tools"):
            self._check_capability("tools", "call tools")
            body["tools"] = [tool.declaration for tool in tools]
        if options.get("thinking"):
            self._check_capability("thinking", "think")
            body["think"] = True
        elif self._loaded.facts and "thinking" in self._loaded.facts.capabilities:
            body["think"] = False
        texts = tuple(message.content for message in messages)
        reply = self._predict("/api/chat", body, texts, max_tokens, temperature)
        return with_reasoning_apart(reply)

    def count_tokens(self, text: str) -> int:
        """Count the tokens of `text` by prefilling it: Ollama has no tokenizer endpoint.

        Raises:
            Failure: `inconclusive` for releases that do not count cached prompt tokens.
        """
        if not self._counts_whole_prompts:
            text = f"Ollama {self._engine.version} does not count cached prompt tokens: update it"
            raise Failure(text, verdict=Verdict.INCONCLUSIVE, phase="predict")
        return self._counter.count(text)

    def unload(self) -> None:
        """Unload and wait until the server no longer lists it; idempotent.

        Raises:
            Failure: It is still loaded, or the server does not answer.
        """
        if not self._unloaded:
            self._engine.unload(self._loaded.path)
            self._unloaded = True

    @property
    def _reports_granted(self) -> bool:
        """Whether the context in a listing is that in force, and not that asked for."""
        release = self._engine.release
        return bool(self._loaded.running.context_length) and not (release and release < (0, 15, 5))

    @property
    def _counts_whole_prompts(self) -> bool:
        release = self._engine.release
        return not release or (release >= (0, 4) and release != (0, 30, 0))

    def _fields(self, options: CompletionOptions) -> dict[str, object]:
        """Return the fields of optional arguments; `options` are joined with those of the load."""
        choices = {name: options[name] for name in ("seed", "stop") if name in options}
        fields: dict[str, object] = {"options": choices}
        if (schema := options.get("schema")) is not None:
            release = self._engine.release
            if release and release < _FIRST_WITH_SCHEMAS:
                text = f"Ollama {self._engine.version} knows no schemas: update it"
                raise Unable(text, option="schema")
            fields["format"] = schema
        return fields

    def _check_capability(self, name: str, doing: str) -> None:
        facts = self._loaded.facts
        if facts and facts.capabilities and name not in facts.capabilities:
            raise Unable(f"Ollama reports that this model cannot {doing}")

    def _predict(
        self,
        path: str,
        body: Mapping[str, object],
        texts: tuple[str, ...],
        max_tokens: int,
        temperature: float,
    ) -> Reply:
        prompt = "\n".join(texts)
        fresh, first = self._is_fresh(prompt), not self._sent
        reply = self._reply(path, body, prompt, max_tokens, temperature)
        self._check_whole(texts, reply)
        tokens = reply.prompt_tokens
        measurable = fresh and tokens is not None and tokens >= _MEASURABLE_TOKENS
        return msgspec.structs.replace(
            reply,
            cached_prompt_tokens=0 if first else None,
            prefill_tokens_per_second=reply.prefill_tokens_per_second if measurable else None,
        )

    def _reply(
        self,
        path: str,
        body: Mapping[str, Any],
        prompt: str,
        max_tokens: int,
        temperature: float,
    ) -> Reply:
        if self._unloaded:
            raise Failure("the model is unloaded", verdict=Verdict.ENGINE_ERROR, phase="predict")
        self._engine.check_held(self._loaded.path)
        self._sent.append(prompt)
        silence = self._engine.reply_timeout
        # Few texts have more than one token for two bytes.
        patience = max(silence, len(prompt.encode()) / 2 / _SLOWEST_PREFILL)
        options = {"num_predict": max_tokens, "temperature": temperature}
        request = {
            **self._loaded.body,
            **body,
            "options": {**self._loaded.body["options"], **body.get("options", {}), **options},
            "truncate": False,
        }
        fragments: list[str] = []
        limit = ReplyLimit("Ollama", max_tokens)
        reply = _Streamed()
        began = time.monotonic()
        lines = self._engine.client.stream(
            path, request, _Line, prefill_seconds=patience, silence_seconds=silence
        )
        with closing(lines):  # a reply that is given up must not be computed further
            for line in lines:
                said = line.message or _Said(content=line.response, thinking=line.thinking)
                if said.content or said.thinking or said.tool_calls:
                    fragments.append(said.content or said.thinking)
                    reply.add(said, time.monotonic() - began)
                    limit.count(fragments[-1])
                if line.done:
                    reply.last = line
        repeated = fragments[-_REPEATED:] == fragments[-1:] * _REPEATED != []
        if reply.last is None and not repeated:
            text = "Ollama ended its reply without a last line"
            raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="predict")
        return reply.result(counts_whole_prompts=self._counts_whole_prompts)

    def _measure(self, piece: str) -> int:
        """Return the tokens of a prompt with the special tokens that the engine adds."""
        body = {"prompt": piece, "raw": True}
        tokens = self._reply("/api/generate", body, piece, 1, 0.0).prompt_tokens
        if tokens is None:
            text = "Ollama does not report the tokens of a prompt"
            raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="predict")
        return tokens

    def _check_whole(self, texts: Sequence[str], reply: Reply) -> None:
        """Raises:
        Failure: The prompt was cut, which Ollama does without an error.
        """
        taken = reply.prompt_tokens
        # A cut leaves half the context at least, which may be half of what is reported.
        if taken is None or taken < self.context_length // 4:
            return
        sent = sum(self.count_tokens(text) for text in texts)
        if taken >= sent:
            return
        text = f"sent {sent:,} prompt tokens, {taken:,} arrived"
        if sent >= self.context_length:
            text = f"the prompt exceeds the context length of {self.context_length:,}: {text}"
            raise Failure(text, verdict=Verdict.CONTEXT_TOO_LARGE, phase="predict")
        raise Failure(text, verdict=Verdict.PROMPT_TRUNCATED, phase="predict")

    def _is_fresh(self, prompt: str) -> bool:
        """Whether the KV cache can hold next to nothing of `prompt`, judging by all before it.

        Ollama does not report how much of a prompt was cached.
        """
        head = prompt[: len(prompt) // 50 + 1]
        return not any(sent.startswith(head) for sent in self._sent)


class _Streamed:
    """Collects a streamed reply."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.tool_calls: list[ToolCall] = []
        self.first_seconds: float | None = None
        self.last: _Line | None = None

    def add(self, said: _Said, seconds: float) -> None:
        if self.first_seconds is None:
            self.first_seconds = seconds
        self.text.append(said.content)
        self.reasoning.append(said.thinking)
        self.tool_calls += (
            ToolCall(name=each.function.name, arguments=each.function.arguments, id=each.id)
            for each in said.tool_calls or ()
        )

    def result(self, *, counts_whole_prompts: bool) -> Reply:
        last = self.last or _Line()
        stop: Literal["stop", "length"] = "length" if last.done_reason == "length" else "stop"
        return Reply(
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            tool_calls=tuple(self.tool_calls),
            stop_reason=stop if self.last is not None else None,
            prompt_tokens=last.prompt_eval_count if counts_whole_prompts else None,
            completion_tokens=last.eval_count,
            ttft_seconds=self.first_seconds,
            prefill_seconds=_prefill_seconds(last),
            prefill_tokens_per_second=_rate(last.prompt_eval_count, last.prompt_eval_duration),
            decode_tokens_per_second=_rate(last.eval_count, last.eval_duration),
        )


def _prefill_seconds(last: _Line) -> float | None:
    """Return the time of the prefill: none at all is left out of a line that has its tokens."""
    has = last.prompt_eval_count is not None
    return (last.prompt_eval_duration or 0) / _NANOSECONDS if has else None


def _rate(tokens: int | None, nanoseconds: int | None) -> float | None:
    return tokens / nanoseconds * _NANOSECONDS if tokens and nanoseconds else None
