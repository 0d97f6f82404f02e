"""A loaded model as users' tests and the built-in checks ask it."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from pytest_lmstrix.checks.granted import ReportedLoad
from pytest_lmstrix.checks.requests import arguments
from pytest_lmstrix.checks.requests.abilities import (
    TOOL_RESULTS,
    EngineErrors,
    Refusals,
    missing_arguments,
)
from pytest_lmstrix.checks.requests.checked_reply import CheckedReply, check_whole, judge
from pytest_lmstrix.checks.requests.history import (
    Messages,
    behind_filler,
    has_tool_results,
    read_messages,
)
from pytest_lmstrix.checks.requests.schema import Schema, read_schema
from pytest_lmstrix.checks.requests.tools import AnyTool, read_tools
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, Model, Reply
from pytest_lmstrix.engines.at_once import Sharing
from pytest_lmstrix.engines.base import Instance
from pytest_lmstrix.engines.request import Tool, Unable
from pytest_lmstrix.probes.filler import filler_text

SAMPLE_TEMPERATURE = 0.8
"""Default in a sample of several: at 0, all of them would be the same."""
TEMPLATE_TOKENS = 64
"""Left free besides a filled prompt and its answer, for the chat template."""
_T = TypeVar("_T")


class Loader(Protocol):
    """Keeps one model loaded at a time."""

    sample_seed: int | None
    is_probing: bool

    def instance_of(self, loaded: LoadedModel) -> Instance:
        """Return the engine's instance behind `loaded`; load it if necessary."""

    def loaded(self) -> LoadedModel | None:
        """Return the current model."""

    def unload(self) -> None:
        """Unload the current model."""

    def remember_failures(self, model: Model) -> Any:
        """Return a context that remembers failures."""


class _Request(Struct, frozen=True, kw_only=True):
    """One request, its arguments read."""

    method: Literal["chat", "complete"]
    max_tokens: int
    fill: int | float | None
    options: Mapping[str, Any]
    """For the engine, those with a meaning."""
    schema: Schema | None
    tools: tuple[Tool, ...] = ()
    has_tool_results: bool = False
    optional: frozenset[str]
    """The options that an engine may leave out."""
    required: bool


class LoadedModel(ReportedLoad):
    """A model at a context length, ready for requests: the value of the fixture `lmstrix_model`.

    It reloads itself if it was unloaded in between, or failed.
    """

    def __init__(self, loader: Loader, model: Model, asked_context_length: int) -> None:
        super().__init__(model, asked_context_length)
        self.load_seconds = 0.0
        self.retried = False
        """Whether the load succeeded only on a retry."""
        self.replies: list[Reply] = []
        self.failed = False
        """Whether its last request failed: the instance may be broken and is not used again."""
        self._loader = loader
        self._prose: dict[int, str] = {}

    def complete(
        self,
        prompt: str,
        *,
        max_tokens: int,
        temperature: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        schema: object = None,
        fill: float | None = None,
        required: bool = False,
    ) -> CheckedReply:
        """Continue `prompt` as it is, without a chat template; the arguments as in `chat`."""
        arguments.read_text(prompt)
        request = self._request(
            "complete", max_tokens, temperature, seed, stop, schema, fill, required
        )
        return self._answer(request, prompt)

    def chat(
        self,
        messages: Messages,
        *,
        max_tokens: int,
        temperature: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        schema: object = None,
        tools: Sequence[AnyTool] = (),
        images: Sequence[arguments.ImageSource] = (),
        thinking: bool | None = None,
        system: str | None = None,
        fill: float | None = None,
        required: bool = False,
    ) -> CheckedReply:
        """Answer one or more messages through the model's chat template.

        Args:
            messages: A text, a message or a history of messages, with tool calls and results.
            max_tokens: The budget of the answer, tokens.
            temperature: 0 by default, and in a sample `SAMPLE_TEMPERATURE`.
            seed: Of the random choices; by default that of the sample, if there are several.
            stop: Texts at which the answer ends.
            schema: What the answer must keep, see `CheckedReply.parsed`: a JSON schema or a type.
            tools: Functions with type hints or JSON schemas, see `CheckedReply.tool_calls`.
            images: Paths or bytes, for the last message.
            thinking: Whether the model is to think before it answers.
            system: The first message, of the system.
            fill: Filler before the last message of the user, so that the prompt has so many
                tokens, or fills this share of the context.
            required: Whether an engine that cannot do this fails the test instead of skipping it.

        Raises:
            TypeError: A mistake in the arguments, as is `ValueError`.
            Unable: The engine or the model cannot do it.
            Failure: The engine failed.
        """
        history = read_messages(messages, system)
        pictures, offered = arguments.read_images(images), read_tools(tools)
        if pictures and history[-1].role != "user":
            raise ValueError("images belong to the last message, which must be of the user")
        request = self._request(
            "chat", max_tokens, temperature, seed, stop, schema, fill, required,
            tools=offered, images=pictures, thinking=arguments.read_switch(thinking, "thinking"),
        )  # fmt: skip
        request = replace(request, has_tool_results=has_tool_results(history))
        return self._answer(request, history)

    def generate(self, prompt: str, *, tokens: int) -> Reply:
        """Continue `prompt` for `tokens` tokens, past an end of text where the engine can."""
        instance = self._loader.instance_of(self)
        generate: Any = getattr(instance, "generate", instance.complete)
        ask: Callable[[], Reply] = partial(generate, prompt, max_tokens=tokens)
        return self.recorded(instance, ask, _as_it_is)

    def rank(self, prompt: str) -> Reply | None:
        """Return one token after `prompt`, and the likeliest ones, where the engine can."""
        rank: Any = getattr(instance := self.instance(), "rank", None)
        return None if rank is None else self.recorded(instance, lambda: rank(prompt), _as_it_is)

    def at_once(self, asks: Sequence[Callable[[Instance], Reply]]) -> list[Reply]:
        """Return the replies to requests that are all sent at once."""
        instance = self._loader.instance_of(self)
        calls = [partial(ask, instance) for ask in asks]
        run: Any = getattr(instance, "at_once", Sharing(math.inf).run)
        with self._watching(instance, partial(self.explained_at_once, requests=len(asks))):
            replies: list[Reply] = run(calls)
        self.replies += replies
        return replies

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` in the model's own vocabulary."""
        arguments.read_text(text, "a text")
        instance = self._loader.instance_of(self)
        with EngineErrors("predict"):
            return instance.count_tokens(text)

    def unload(self) -> None:
        """Unload it now instead of after the last test that uses it."""
        if self._loader.loaded() is self:
            self._loader.unload()

    def _request(
        self,
        method: Literal["chat", "complete"],
        max_tokens: object,
        temperature: object,
        seed: object,
        stop: object,
        schema: object,
        fill: object,
        required: object,
        **more: Any,
    ) -> _Request:
        """Read the arguments of a request.

        Raises:
            TypeError: A mistake in them, as is `ValueError`.
        """
        if not isinstance(required, bool):
            raise TypeError(f"required must be True or False, got {required!r}")
        sample = self._loader.sample_seed
        if temperature is None:
            temperature = 0.0 if sample is None else SAMPLE_TEMPERATURE
        read = None if schema is None else read_schema(schema)
        known_seed = sample if seed is None else arguments.read_count(seed, "seed", least=0)
        options: dict[str, Any] = {
            "temperature": arguments.read_temperature(temperature),
            "seed": known_seed,
            "stop": arguments.read_stop(stop),
            "schema": read and read.json,
            **more,
        }
        optional = set() if temperature else {"temperature"}
        if not required:
            optional |= {"schema", "seed"} if seed is None else {"schema"}
        return _Request(
            method=method,
            max_tokens=arguments.read_count(max_tokens, "max_tokens"),
            fill=None if fill is None else arguments.read_fill(fill),
            options={k: v for k, v in options.items() if v is not None and v != ()},
            schema=read,
            tools=more.get("tools", ()),
            optional=frozenset(optional),
            required=required,
        )

    def _answer(self, request: _Request, subject: str | tuple[Message, ...]) -> CheckedReply:
        try:
            return self._able_answer(request, self._filled(request, subject))
        except Unable as error:
            if request.required:
                raise RuntimeError(f"required by the test: {error}") from error
            raise

    def _able_answer(self, request: _Request, subject: str | tuple[Message, ...]) -> CheckedReply:
        """Return the answer, with less than the request asks for where that is optional."""
        left_out: set[str] = set()
        while True:
            options = {k: v for k, v in request.options.items() if k not in left_out}
            instance = self._loader.instance_of(self)
            needed = [*options, "tools"] if request.has_tool_results else options
            missing = missing_arguments(getattr(instance, request.method), needed)
            try:
                for name in missing:
                    engine = self.model.engine
                    text = f"engine {engine!r} takes no {name} in {request.method}"
                    raise Unable(text, option=name)
                reply = self._reply(instance, request, subject, options)
            except Unable as error:
                if error.option not in request.optional & options.keys():
                    raise
                left_out.add(error.option)
                continue
            return judge(reply, request.schema, request.tools, enforced="schema" in options)

    def _reply(
        self,
        instance: Instance,
        request: _Request,
        subject: str | tuple[Message, ...],
        options: Mapping[str, Any],
    ) -> Reply:
        method: Any = getattr(instance, request.method)
        used = [*options, TOOL_RESULTS] if request.has_tool_results else options
        ask = partial(method, subject, max_tokens=request.max_tokens, **options)
        reply: Reply = self.recorded(instance, ask, _as_it_is, used)
        if not self._loader.is_probing:  # the built-in checks judge by the counts themselves
            check_whole(subject, reply, self.count_tokens)
        return reply

    def instance(self) -> Instance:
        """Return the engine's instance; load it again if necessary."""
        return self._loader.instance_of(self)

    def recorded(
        self,
        instance: Instance,
        ask: Callable[[], _T],
        reply_of: Callable[[_T], Reply],
        options: Container[str] = (),
    ) -> _T:
        """Return the answer of `instance`, and record its `reply_of`.

        Raises:
            Failure: The engine failed. Or `Unable`: it refuses one of the `options`.
        """
        with self._watching(instance, self.explained), Refusals(options), EngineErrors("predict"):
            answer = ask()
        self.replies.append(reply_of(answer))
        return answer

    @contextmanager
    def _watching(
        self, instance: Instance, explained: Callable[[Failure], Failure]
    ) -> Iterator[None]:
        """Note a failure of the engine, raise it `explained`, and read how the load is now."""
        try:
            with self._loader.remember_failures(self.model), EngineErrors("predict"):
                yield
        except Failure as failure:
            self.failed = True
            raise explained(failure) from failure.__cause__
        finally:
            self.read(instance)

    def _filled(
        self, request: _Request, subject: str | tuple[Message, ...]
    ) -> str | tuple[Message, ...]:
        """Return `subject` behind as much filler as the request asks for."""
        if request.fill is None:
            return subject
        self._loader.instance_of(self)
        room = self.usable_context_length
        wanted = request.fill if isinstance(request.fill, int) else int(request.fill * room)
        if wanted + request.max_tokens + TEMPLATE_TOKENS > room:
            raise Unable(
                f"a prompt of {wanted:,} tokens and an answer of {request.max_tokens:,} do not"
                f" fit in a context of {room:,}"
            )
        texts = [subject] if isinstance(subject, str) else [each.content for each in subject]
        tokens = wanted - self.count_tokens("\n".join(texts))
        if tokens < 1:
            return subject
        if tokens not in self._prose:
            self._prose[tokens] = filler_text(tokens, self.count_tokens)
        filler = self._prose[tokens]
        if isinstance(subject, str):
            return f"{filler}\n\n{subject}"
        return behind_filler(filler, subject)


def _as_it_is(reply: Reply) -> Reply:
    return reply
