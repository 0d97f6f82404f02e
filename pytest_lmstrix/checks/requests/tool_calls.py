"""Grades the tool calls of a reply: each is well-formed, or has the fault that it has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from pytest_lmstrix.checks.requests.schema import validator
from pytest_lmstrix.core.types import Reply, ToolCall, ToolFault
from pytest_lmstrix.engines.request import Tool

MOST_OBJECTS = 100
"""Objects in a text that are looked at."""
_NAMES = ("name", "tool", "tool_name", "function")
_ARGUMENTS = ("arguments", "parameters", "args", "input")
_HALF = re.compile(r'\{\s*"(?:name|tool|tool_name|function)"\s*:\s*(?:\{\s*"name"\s*:\s*)?"([^"]*)')
_WORDS: dict[ToolFault, str] = {
    "fenced": "the call is in a code fence of the answer: no engine calls it",
    "in_text": "the call is in the text of the answer: no engine calls it",
    "in_reasoning": "the call is in the reasoning: no engine calls it",
    "cut_off": "the call ends in the middle",
}


def grade_calls(reply: Reply, tools: Sequence[Tool]) -> tuple[ToolCall, ...]:
    """Return the calls of `reply`, each well-formed or with its fault.

    Calls are also looked for in the answer and in the reasoning, where none was found.
    """
    if not tools:
        return reply.tool_calls
    if reply.tool_calls:
        known = {tool.name: tool for tool in tools}
        return tuple(_graded(call, known) for call in reply.tool_calls)
    return tuple(_written(reply.text, tools)) or tuple(
        _faulty(call, call.fault if call.fault == "cut_off" else "in_reasoning")
        for call in _written(reply.reasoning, tools)
    )


def _faulty(call: ToolCall, fault: ToolFault | None, detail: str = "") -> ToolCall:
    return replace(call, fault=fault, detail=detail or _WORDS.get(fault or "in_text", ""))


def _graded(call: ToolCall, tools: dict[str, Tool]) -> ToolCall:
    arguments, text = call.arguments, call.arguments
    if isinstance(text, str):
        try:
            arguments = json.loads(text) if text.strip() else {}
        except ValueError as error:
            if _ends_early(text, error):
                return _faulty(call, "cut_off")
            detail = f"the arguments are not JSON: {error}"
            return _faulty(call, "not_an_object", detail)
    arguments = {} if arguments is None else arguments
    if call.name not in tools:
        choices = ", ".join(map(repr, tools))
        detail = f"{call.name!r} is not a tool of the request; choose from {choices}"
        return _faulty(call, "wrong_name", detail)
    if not isinstance(arguments, dict):
        detail = f"the arguments are not an object but {arguments!r:.200}"
        return _faulty(call, "not_an_object", detail)
    call = replace(call, arguments=arguments)
    try:
        validator(tools[call.name].parameters)(arguments)
    except ValueError as error:
        return _faulty(call, "wrong_arguments", f"wrong arguments: {error}")
    return call


def _ends_early(text: str, error: ValueError) -> bool:
    """Whether more text may have made it JSON."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated") or error.pos >= len(text.rstrip())


def _written(text: str, tools: Sequence[Tool]) -> Iterator[ToolCall]:
    """Yield the calls that are written in `text` as JSON."""
    names = {tool.name for tool in tools}
    decoder = json.JSONDecoder()
    at = 0
    for _ in range(MOST_OBJECTS):
        at = text.find("{", at)
        if at < 0:
            return
        fault: ToolFault = "fenced" if text.count("```", 0, at) % 2 else "in_text"
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            half = _HALF.match(text, at)
            if half is not None and any(name.startswith(half[1]) for name in names):
                yield _faulty(ToolCall(name=half[1], arguments=text[at:]), "cut_off")
                return
            at += 1
            continue
        call = _as_call(value, names)
        if call is not None:
            yield _faulty(call, fault)
        at = end


def _as_call(value: Any, names: set[str]) -> ToolCall | None:
    """Return the call that an object of JSON means, if it means one."""
    inner = value.get("function") if isinstance(value, dict) else None
    if isinstance(inner, dict):
        value = inner
    if not isinstance(value, dict):
        return None
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    arguments = next((value[key] for key in _ARGUMENTS if key in value), None)
    if name is None or (arguments is None and name not in names):
        return None
    return ToolCall(name=name, arguments=arguments)
