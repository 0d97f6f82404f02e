"""A model loaded in LM Studio by us."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar, Unpack

from lmstudio import (
    LLM,
    Client,
    FileHandle,
    LlmPredictionConfigDict,
    set_sync_api_timeout,
)
from lmstudio.sync_api import PredictionStream

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.at_once import Sharing
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.counting import KnownCounts
from pytest_lmstrix.engines.lmstudio import endpoints
from pytest_lmstrix.engines.lmstudio.connection import stalling
from pytest_lmstrix.engines.lmstudio.errors import COMPLETE_REASONS, broken_off
from pytest_lmstrix.engines.lmstudio.settings import (
    InForce,
    LoadFields,
    in_force,
    option_fields,
    thinking_fields,
)
from pytest_lmstrix.engines.reasoning import with_reasoning_apart
from pytest_lmstrix.engines.reply_limit import BEYOND_LIMIT, ReplyLimit
from pytest_lmstrix.engines.request import ChatOptions, CompletionOptions, Image, Unable
from pytest_lmstrix.engines.stream_clock import StreamClock

if TYPE_CHECKING:
    from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine

_T = TypeVar("_T")
_Talk = tuple[Client, Callable[[], None], Callable[[float], None]]
"""A client, and what to call for a sign of life and for the progress of a prefill."""

SLOWEST_PREFILL = 50.0
"""Prompt tokens per second below which a prefill without progress counts as hung."""

SHORT_PROMPT_BYTES = 2_000
"""A prompt up to it is not counted before it is sent: its prefill is too short to be watched."""
_BYTES_PER_TOKEN = 4


class LmStudioInstance:
    """An instance that only we use, known to the server by `identifier`."""

    def __init__(
        self,
        engine: LmStudioEngine,
        identifier: str,
        progress: Progress,
        asked: LoadFields,
        *,
        device: str | None = None,
    ) -> None:
        self.identifier = identifier
        self._engine = engine
        self._device = device
        self._progress = progress
        self._sent: list[str] = []
        self._lost: Failure | None = None
        self._sharing: Sharing | None = None
        """That of the requests at once that are running."""
        self._unloaded = False
        self._requests = asked.requests
        self._counts = KnownCounts(self._count_tokens)
        self._context_length = self._read_context_length()
        self._in_force = self._read_in_force(asked)

    @property
    def context_length(self) -> int:
        """The granted context length in tokens, as the server reports it after the load.

        The part of each of the requests at once that the load is for.
        """
        return self._context_length // self._requests

    @property
    def usable_context_length(self) -> int:
        """What one request may fill of it, where parallel requests share it; tokens."""
        return min(self.context_length, self._context_length // self._in_force.slots)

    @property
    def ignored_settings(self) -> tuple[str, ...]:
        """Load settings that were asked for and are not in force."""
        return self._in_force.ignored_settings

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of this load."""
        notes = []
        if self._device is not None:
            notes.append(f"linked device: ran on {self._device}, not on this machine")
        if self.ignored_settings:
            notes.append(f"settings: LM Studio did not apply {', '.join(self.ignored_settings)}")
        if self._in_force.slots > 1:
            notes.append(
                f"slots: a request gets {self.usable_context_length:,} of the"
                f" {self._context_length:,} tokens granted (one of {self._in_force.slots} slots)"
            )
        return tuple(notes)

    def complete(
        self, prompt: str, *, max_tokens: int, temperature: float = 0.0,
        **options: Unpack[CompletionOptions],
    ) -> Reply:  # fmt: skip
        """Continue `prompt` as it is, without the model's chat template."""
        config = _prediction_config(max_tokens, temperature)
        fields = option_fields(options)

        def start(client: Client, prefilled: Callable[[float], None]) -> PredictionStream:
            return endpoints.complete(client, self.identifier, prompt, config, fields, prefilled)

        return self._predict(prompt, start, max_tokens)

    def chat(
        self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0,
        **options: Unpack[ChatOptions],
    ) -> Reply:  # fmt: skip
        """Answer `messages` through the model's chat template.

        Reasoning that LM Studio leaves in the text is separated by its `<think>` tags.
        """
        config = _prediction_config(max_tokens, temperature)
        thinking = thinking_fields(max_tokens, thinking=options.get("thinking", False))
        fields = {**thinking, **option_fields(options)}
        history = endpoints.history_of(messages)
        if images := options.get("images"):
            history.add_user_message([], images=self._prepared(images))

        def start(client: Client, prefilled: Callable[[float], None]) -> PredictionStream:
            return endpoints.respond(client, self.identifier, history, config, fields, prefilled)

        reply = self._predict("\n".join(m.content for m in messages), start, max_tokens)
        return with_reasoning_apart(reply)

    def at_once(self, asks: Sequence[Callable[[], Reply]]) -> list[Reply]:
        """Return the answers to requests of this instance, all sent at once; see `Engine`."""
        link, silence = self._engine.link, self._engine.reply_timeout
        self._sharing = sharing = Sharing(silence)
        try:
            with link.talking("predict", "answering", silence), link.lent():
                return sharing.run(asks, end=link.drop)
        except BaseException as error:
            self._give_up(error)
            raise
        finally:
            self._sharing = None

    def _prepared(self, images: Sequence[Image]) -> list[FileHandle]:
        """Upload images; a message refers to them."""
        if not self._sees:
            raise Unable("LM Studio reports that this model cannot see images")
        return self._ask(
            lambda client: [client.prepare_image(each.data, each.file_name) for each in images],
            "uploading an image",
        )

    def count_tokens(self, text: str) -> int:
        """Count the tokens of `text` in the model's vocabulary."""
        self._check_held()
        return self._counts(text)

    def _count_tokens(self, text: str) -> int:
        return self._ask(
            lambda client: LLM(self.identifier, client.llm).count_tokens(text), "counting tokens"
        )

    def unload(self) -> None:
        """Unload and wait until the server no longer lists it; idempotent.

        Raises:
            Failure: It is still loaded, or the server does not answer.
        """
        if not self._unloaded:
            self._engine.unload(self.identifier, self._device, is_listed=True)
            self._unloaded = True

    def _read_context_length(self) -> int:
        info = self._ask(
            lambda client: endpoints.instance_info(client, self.identifier),
            "asking for the granted context length",
        )
        self._sees = not isinstance(info, dict) or info.get("vision") is not False
        granted = info.get("contextLength") if isinstance(info, dict) else None
        if type(granted) is int and granted > 0:
            return granted
        text = f"LM Studio does not report the context length granted to {self.identifier}"
        raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="load")

    def _read_in_force(self, asked: LoadFields) -> InForce:
        reported: object = None
        try:
            reported = self._ask(
                lambda client: endpoints.load_config(client, self.identifier),
                "asking for the load settings",
            )
        except Failure as failure:
            if failure.verdict is not Verdict.ENGINE_ERROR:
                raise
        return in_force(asked, reported)

    def _ask(self, question: Callable[[Client], _T], doing: str) -> _T:
        self._check_held()
        # Not found in this phase means that the instance died, not that the model is missing.
        namespace = endpoints.namespace_of(self.identifier)
        return self._engine.link.ask(question, phase="predict", doing=doing, namespace=namespace)

    def _check_held(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _predict(
        self,
        prompt: str,
        start: Callable[[Client, Callable[[float], None]], PredictionStream],
        max_tokens: int,
    ) -> Reply:
        self._check_held()
        with self._in_order():
            total = self._prompt_tokens(prompt, self._engine.reply_timeout)
        fresh, first = self._is_fresh(prompt), not self._sent
        self._sent.append(prompt)
        text: list[str] = []
        reasoning: list[str] = []
        limit = ReplyLimit("LM Studio", max_tokens)
        clock = StreamClock()
        with ExitStack() as stack:
            client, moved, prefilled = stack.enter_context(self._talking(total))
            with self._in_order():
                stream = stack.enter_context(start(client, prefilled))
            stack.enter_context(endpoints.cancelling(stream))
            endpoints.hear_tool_calls(stream, moved)
            for fragment in stream:
                moved()
                limit.count(fragment.content)
                clock.arrived()
                match fragment.reasoning_type:
                    case "none":
                        text.append(fragment.content)
                    case "reasoning":
                        reasoning.append(fragment.content)
            stats = stream.result().stats
        reason = endpoints.stop_reason(stream)
        answered = bool("".join(text).strip() or endpoints.tool_calls(stream))
        began = answered or any(text) or any(reasoning)
        failure = broken_off(reason, answered=answered, began=began)
        if failure is not None:
            raise failure
        return Reply(
            text="".join(text),
            reasoning="".join(reasoning),
            tool_calls=endpoints.tool_calls(stream),
            stop_reason=COMPLETE_REASONS.get(reason),
            # A prompt has at least one token: none means that they were not counted.
            prompt_tokens=stats.prompt_tokens_count or None,
            cached_prompt_tokens=0 if first else None,
            completion_tokens=stats.predicted_tokens_count,
            ttft_seconds=endpoints.positive(stats.time_to_first_token_sec) or clock.first_seconds,
            decode_seconds=clock.decode_seconds,
            prefill_tokens_per_second=endpoints.prefill_rate(stats) if fresh else None,
            decode_tokens_per_second=endpoints.positive(stats.tokens_per_second),
        )

    @contextmanager
    def _talking(self, total: int) -> Iterator[_Talk]:
        """A client for the prediction of a prompt of `total` tokens, watched for its silence."""
        link, silence = self._engine.link, self._engine.reply_timeout
        if (sharing := self._sharing) is not None:
            sharing.allow(total / SLOWEST_PREFILL)
            with link.talking("predict", "answering", silence) as client:
                yield client, sharing.moved, partial(self._prefilled, sharing, total)
            return
        patience = max(silence, total / SLOWEST_PREFILL)

        def prefilled(fraction: float) -> None:
            if fraction > 0:
                set_sync_api_timeout(silence)
                moved()
            self._progress.prefill(round(fraction * total), total)

        try:
            with (
                link.talking("predict", "answering", patience) as client,
                stalling(patience, silence) as moved,
            ):
                yield client, moved, prefilled
        except BaseException as error:
            self._give_up(error)
            raise

    def _in_order(self) -> AbstractContextManager[object]:
        """A lock on the connection: the SDK may send a later call before an earlier one."""
        return nullcontext() if self._sharing is None else self._sharing.turn

    def _prefilled(self, sharing: Sharing, total: int, fraction: float) -> None:
        sharing.prefill(self._progress, round(fraction * total), total)

    def _give_up(self, error: BaseException) -> None:
        """Unload an instance that may still be computing an abandoned reply."""
        if not isinstance(error, Failure) or error.verdict is Verdict.TIMEOUT:
            self._lost = error if isinstance(error, Failure) else None
            self._engine.abandon(self.identifier, error, loading=False)
        elif error.code == BEYOND_LIMIT:
            self._engine.link.drop()  # else the rest would still be received and parsed

    def _prompt_tokens(self, prompt: str, silence: float) -> int:
        """Count the tokens of `prompt`, which set the limit; estimate them where they cannot.

        A token has a byte or more. A connection that died meanwhile is found out by a count.
        """
        size = len(prompt.encode(errors="surrogatepass"))
        if not self._engine.link.is_alive:
            return self._count_tokens(prompt)
        if size > min(SHORT_PROMPT_BYTES, silence * SLOWEST_PREFILL):
            return self.count_tokens(prompt)
        return size // _BYTES_PER_TOKEN + 1

    def _is_fresh(self, prompt: str) -> bool:
        """Whether the KV cache can hold next to nothing of `prompt`, judging by all before it.

        LM Studio does not report how much of a prompt was cached.
        """
        head = prompt[: len(prompt) // 50 + 1]
        return not any(sent.startswith(head) for sent in self._sent)


def _prediction_config(max_tokens: int, temperature: float) -> LlmPredictionConfigDict:
    return {
        "maxTokens": max_tokens,
        "temperature": temperature,
        # The default would silently cut the middle out of a prompt that is too long.
        "contextOverflowPolicy": "stopAtLimit",
    }
