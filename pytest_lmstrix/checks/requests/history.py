"""Reads the messages of a request: each result of a tool belongs to a call before it.

Mistakes raise `TypeError` or `ValueError` before the engine is asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from msgspec.structs import replace

from pytest_lmstrix.checks.requests.arguments import read_text
from pytest_lmstrix.core.sanitize import well_formed
from pytest_lmstrix.core.types import Message, ToolCall

AnyMessage = Message | Mapping[str, Any]
Messages = str | AnyMessage | Sequence[AnyMessage]
"""A text is one message of the user; a mapping has the keys `role` and `content`."""

ROLES = ("system", "user", "assistant", "tool")
_MORE_KEYS: Mapping[object, frozenset[str]] = {
    "assistant": frozenset({"tool_calls"}),
    "tool": frozenset({"tool_call_id", "name"}),
}


def read_messages(messages: object, system: object = None) -> tuple[Message, ...]:
    """Return the history: `messages` behind `system`, if that is given."""
    if isinstance(messages, str):
        messages = [Message(role="user", content=messages)]
    elif isinstance(messages, Message | Mapping):
        messages = [messages]
    if not isinstance(messages, Iterable):
        raise TypeError(f"messages must be a str or a list of messages, got {messages!r}")
    history = _linked(map(_read_message, messages))
    if not history:
        raise ValueError("messages must not be empty")
    if system is None:
        return history
    if history[0].role == "system":
        raise ValueError("got system=... and messages that begin with one of the system")
    return Message(role="system", content=read_text(system, "system")), *history


def has_tool_results(history: Iterable[Message]) -> bool:
    return any(message.role == "tool" for message in history)


def behind_filler(filler: str, history: Sequence[Message]) -> tuple[Message, ...]:
    """Put `filler` before the last message of the user: a call and its results stay together."""
    at = max((n for n, each in enumerate(history) if each.role == "user"), default=-1)
    filled = [*history]
    filled[at] = replace(filled[at], content=f"{filler}\n\n{filled[at].content}")
    return tuple(filled)


def _read_message(message: object) -> Message:
    if isinstance(message, Mapping):
        message = _of_mapping(message)
    if not isinstance(message, Message):
        raise TypeError(f"a message must be a Message or a dict, got {message!r}")
    read_text(message.content, "the content of a message")
    if message.role not in ROLES:
        choices = ", ".join(map(repr, ROLES))
        raise ValueError(f"{message.role!r} is not a valid role; choose from {choices}")
    if message.tool_calls and message.role != "assistant":
        raise ValueError(f"a message of {message.role!r} has no tool calls")
    return replace(message, tool_calls=tuple(map(_read_call, message.tool_calls)))


def _of_mapping(given: Mapping[str, Any]) -> Message:
    role = given.get("role")
    more = _MORE_KEYS.get(role, frozenset()) if isinstance(role, str) else frozenset()
    if not {"role", "content"} <= set(given) <= {"role", "content"} | more:
        keys = ", ".join(map(repr, given))
        also = f" (of {role!r} also {', '.join(map(repr, sorted(more)))})" if more else ""
        raise ValueError(f"a message has the keys 'role' and 'content'{also}, got {keys}")
    calls, content = given.get("tool_calls") or (), given["content"]
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise TypeError(f"tool_calls must be a list, got {calls!r}")
    return Message(
        role=given["role"],
        content="" if content is None and calls else content,
        tool_calls=tuple(calls),
        tool_call_id=read_text(given.get("tool_call_id") or "", "tool_call_id"),
        tool_name=read_text(given.get("name") or "", "the name of a tool"),
    )


def _read_call(given: object) -> ToolCall:
    """Return the call of a reply, or of OpenAI's form."""
    if isinstance(given, Mapping):
        inner = given.get("function", given)
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise TypeError(f"a tool call has a name and arguments, got {dict(given)!r}")
        call_id = read_text(given.get("id") or "", "the id of a tool call")
        given = ToolCall(name=inner["name"], arguments=inner.get("arguments"), id=call_id)
    if not isinstance(given, ToolCall):
        raise TypeError(f"a tool call must be a ToolCall or a dict, got {given!r}")
    return replace(given, arguments=_read_arguments(given), fault=None, detail="")


def _read_arguments(call: ToolCall) -> dict[str, Any]:
    """Return what every engine can send: models write NaN, and halves of characters."""
    arguments = call.arguments
    try:
        read = json.loads(arguments) if isinstance(arguments, str) else arguments
        text = json.dumps(read, allow_nan=False, ensure_ascii=False)
        read = json.loads(well_formed(text))
    except (TypeError, ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise ValueError(
            f"the arguments of tool call {call.name!r} must be an object of JSON, got {arguments!r}"
        )
    return read


def _linked(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Give each call an id, and each result the id and the name of its call."""
    ids = (f"call_{number}" for number in count())
    history: list[Message] = []
    waiting: list[ToolCall] = []
    for message in messages:
        if message.role == "tool":
            call = _answered(message, waiting)
            waiting.remove(call)
            message = replace(message, tool_call_id=call.id, tool_name=call.name)
        elif waiting:
            raise ValueError(_without_result(waiting))
        elif message.tool_calls:
            waiting = [
                call if call.id else replace(call, id=next(ids)) for call in message.tool_calls
            ]
            message = replace(message, tool_calls=tuple(waiting))
        history.append(message)
    if waiting:
        raise ValueError(_without_result(waiting))
    return tuple(history)


def _answered(message: Message, waiting: Sequence[ToolCall]) -> ToolCall:
    """Return the call of a result: that with its id, or without an id the first one."""
    if not waiting:
        raise ValueError("a message of 'tool' must follow the tool calls of an assistant's message")
    wanted = message.tool_call_id
    call = next((call for call in waiting if wanted in ("", call.id)), None)
    if call is None:
        choices = ", ".join(repr(call.id) for call in waiting)
        raise ValueError(f"no tool call has the id {wanted!r}; choose from {choices}")
    if message.tool_name not in ("", call.name):
        raise ValueError(
            f"the tool call {call.id!r} is of {call.name!r}, not {message.tool_name!r}"
        )
    return call


def _without_result(waiting: Sequence[ToolCall]) -> str:
    names = ", ".join(repr(call.name) for call in waiting)
    return f"no result of tool calls: {names}; a message of 'tool' must follow for each"
