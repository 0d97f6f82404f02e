"""Messages in Ollama's form.

Source: https://docs.ollama.com/capabilities/tool-calling
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_lmstrix.core.types import Message
from pytest_lmstrix.engines.request import Image


def turns_of(messages: Sequence[Message], images: Sequence[Image]) -> list[dict[str, Any]]:
    """Return the field `messages` of a chat; releases ignore the keys that they do not know."""
    turns = list(map(_turn, messages))
    if images:
        turns[-1]["images"] = [image.base64 for image in images]
    return turns


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        turn |= {"tool_call_id": message.tool_call_id, "tool_name": message.tool_name}
    return turn
