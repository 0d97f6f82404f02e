"""The reply to a request of a user's test: with a schema its value, with tools their calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pytest_lmstrix.checks.requests.schema import Schema
from pytest_lmstrix.checks.requests.tool_calls import grade_calls
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, Reply, ToolCall
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.request import Tool

_COUNTED_CHARACTERS = 4_000
"""Shorter prompts are not counted: every context has room for them."""
_TOLERANCE_TOKENS, _TOLERANCE = 8, 0.01
"""What may be missing, in tokens or of all: those of a text differ by a few from its parts'."""


class CheckedReply(Reply, frozen=True, kw_only=True):
    """A reply, judged by the schema and the tools of its request."""

    schema_error: str | None = None
    """Why the text does not keep the schema; empty if it does, `None` without a schema."""
    enforced: bool = False
    """Whether the engine was made to keep the schema."""
    value: Any = None

    @property
    def parsed(self) -> Any:
        """The value of the text: of the type that was given as the schema.

        Raises:
            AssertionError: It does not keep the schema, which is a wrong answer.
            ValueError: The request had no schema.
        """
        if self.schema_error is None:
            raise ValueError("`parsed` needs a request with schema=...")
        if self.schema_error:
            raise AssertionError(f"the schema is not kept: {self.schema_error}\n{self.text}")
        return self.value

    @property
    def tool_call(self) -> ToolCall:
        """The only tool call of the reply, which is well-formed.

        Raises:
            AssertionError: There is none, or more than one, or it has a fault: a wrong answer.
        """
        if not self.tool_calls:
            raise AssertionError(f"no tool was called\n{self.text or self.reasoning}")
        if len(self.tool_calls) > 1:
            names = ", ".join(call.name for call in self.tool_calls)
            raise AssertionError(f"{len(self.tool_calls)} tools were called: {names}")
        (call,) = self.tool_calls
        return _well_formed(call)

    @property
    def message(self) -> Message:
        """The reply as a message of the assistant, for the history of the next request.

        Raises:
            AssertionError: A tool call has a fault, so that it can have no result: a wrong answer.
        """
        calls = tuple(map(_well_formed, self.tool_calls))
        return Message(role="assistant", content=self.text, tool_calls=calls)


def _well_formed(call: ToolCall) -> ToolCall:
    if call.fault is not None:
        raise AssertionError(f"{call.fault}: {call.detail}\n{call.name} {call.arguments!r}")
    return call


def judge(
    reply: Reply, schema: Schema | None, tools: Sequence[Tool], *, enforced: bool
) -> CheckedReply:
    """Return `reply` with the value of its text and graded tool calls."""
    fields = {name: getattr(reply, name) for name in Reply.__struct_fields__}
    fields["tool_calls"] = grade_calls(reply, tools)
    if schema is None:
        return CheckedReply(**fields)
    try:
        value = schema.convert(reply.text)
    except (ValueError, RecursionError) as error:
        wrong = str(error) or type(error).__name__
        return CheckedReply(**fields, schema_error=wrong, enforced=enforced)
    return CheckedReply(**fields, schema_error="", value=value, enforced=enforced)


def check_whole(
    subject: str | Sequence[Message], reply: Reply, count_tokens: Callable[[str], int]
) -> None:
    """Check that all of a long prompt arrived, which some engines cut without an error.

    Raises:
        Failure: Less than that, as far as the engine tells.
    """
    texts = [subject] if isinstance(subject, str) else [each.content for each in subject]
    taken = reply.prompt_tokens
    if taken is None or sum(map(len, texts)) < _COUNTED_CHARACTERS:
        return
    try:
        sent = sum(map(count_tokens, texts))
    except Failure as failure:
        if failure.verdict is Verdict.INCONCLUSIVE:  # it counts no tokens
            return
        raise
    if sent - taken > max(_TOLERANCE_TOKENS, sent * _TOLERANCE):
        text = f"sent {sent:,} prompt tokens, {taken:,} arrived: the engine cut the prompt"
        raise Failure(text, verdict=Verdict.PROMPT_TRUNCATED, phase="predict")
