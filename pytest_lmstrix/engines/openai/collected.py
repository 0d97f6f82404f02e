"""Collects the events of a streamed reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.openai.messages import StreamEvent, Timings, Usage
from pytest_lmstrix.engines.openai_form import ToolCallParts
from pytest_lmstrix.engines.reply_limit import ReplyLimit
from pytest_lmstrix.engines.stream_clock import StreamClock

_ENDED_BY_SERVER = ("abort", "aborted", "cancelled", "canceled", "error", "failed")
"""Reasons of an end that is neither the model's nor ours, as of vLLM and SGLang."""
_ENDED_BY_LENGTH = ("length", "max_tokens", "limit")


class CollectedReply:
    """The events of one reply."""

    def __init__(self, limit: ReplyLimit) -> None:
        self._limit = limit
        self._clock = StreamClock()
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls = ToolCallParts()
        self._finish_reason = ""
        self._is_whole = False
        """Whether the server marked the end of the reply, with or without a reason."""
        self._usage = Usage()
        self._timings = Timings()

    def add(self, event: StreamEvent | None) -> None:
        """Add an event, or `None` for the mark of the end."""
        if event is None:
            self._is_whole = True
            return
        for choice in (event.choices or ())[:1]:
            called = "".join(map(self._tool_calls.add, choice.calls))
            if choice.said or choice.thought or called:
                self._limit.count(choice.said + choice.thought + called)
                self._clock.arrived()
            self._text.append(choice.said)
            self._reasoning.append(choice.thought)
            self._finish_reason = choice.finish_reason or self._finish_reason
            self._is_whole |= choice.message is not None
        # Some servers have a usage of zeros in all events but one.
        if event.usage and (event.usage.prompt_tokens or not self._usage.prompt_tokens):
            self._usage = event.usage
        self._timings = event.timings or self._timings

    def reply(self, redact: Callable[[str], str]) -> Reply:
        """Return the reply.

        Raises:
            Failure: The server ended it before its last event, or ended it itself.
        """
        self._check_end()
        details = self._usage.prompt_tokens_details
        cached, speed = self._timings.cache_n, self._timings.prompt_per_second
        return Reply(
            text=redact("".join(self._text)),
            reasoning=redact("".join(self._reasoning)),
            tool_calls=self._tool_calls.calls(redact),
            stop_reason=self._stop_reason,
            # Every prompt has some: 0 means that they were not counted.
            prompt_tokens=self._usage.prompt_tokens or None,
            cached_prompt_tokens=details.cached_tokens if cached is None and details else cached,
            completion_tokens=self._completion_tokens,
            ttft_seconds=self._clock.first_seconds,
            prefill_seconds=(self._timings.prompt_n or 0) / speed if speed else None,
            decode_seconds=self._clock.decode_seconds,
            prefill_tokens_per_second=speed or None,
            decode_tokens_per_second=self._timings.predicted_per_second or None,
        )

    def _check_end(self) -> None:
        reason = self._finish_reason
        if reason.lower() in _ENDED_BY_SERVER:
            text = f"the server ended the reply itself (finish_reason {reason!r})"
            raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="predict")
        if self._has_no_room:
            text = "the server's context was full before the reply began: no room for the prompt"
            raise Failure(text, verdict=Verdict.CONTEXT_TOO_LARGE, phase="predict")
        # Some servers leave out the reason now and then; a crash leaves out the text, too.
        if not reason and not (self._is_whole and self._clock.first_seconds):
            text = "the server broke off its reply"
            raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="predict")

    @property
    def _has_no_room(self) -> bool:
        """Whether a reply without a token ended for its length, as LM Studio's (2339) may."""
        counted = self._usage.completion_tokens
        silent = counted == 0 and not self._clock.first_seconds
        return silent and self._limit.max_tokens > 1 and self._stop_reason == "length"

    @property
    def _completion_tokens(self) -> int | None:
        counted = self._usage.completion_tokens
        return None if counted == 0 and self._clock.first_seconds else counted

    @property
    def _stop_reason(self) -> Literal["stop", "length"]:
        if self._finish_reason:
            return "length" if self._finish_reason.lower() in _ENDED_BY_LENGTH else "stop"
        return "length" if self._limit.is_reached(self._usage.completion_tokens) else "stop"
