"""Optional arguments and tool calls in OpenAI's form, which several servers share.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from pytest_lmstrix.core.types import Message, ToolCall
from pytest_lmstrix.engines.request import ChatOptions, Embeddings, Image


class _Vector(Struct, frozen=True):
    embedding: list[float]
    index: int = 0


class _EmbeddingUsage(Struct, frozen=True):
    prompt_tokens: int | None = None


class EmbeddingAnswer(Struct, frozen=True):
    """The answer of `/v1/embeddings`."""

    data: list[_Vector]
    usage: _EmbeddingUsage | None = None

    def embeddings(self) -> Embeddings:
        vectors = sorted(self.data, key=lambda each: each.index)
        tokens = self.usage.prompt_tokens if self.usage else None
        # A text has at least one token: none means that they were not counted.
        return Embeddings(
            vectors=[each.embedding for each in vectors], prompt_tokens=tokens or None
        )


def embedding_fields(texts: Sequence[str]) -> dict[str, object]:
    """Return the fields of a request for the vectors of `texts`."""
    return {"input": list(texts), "encoding_format": "float"}


class _FunctionPart(Struct, frozen=True):
    name: str | None = None
    arguments: Any = None


class ToolCallPart(Struct, frozen=True):
    """A part of a streamed tool call."""

    index: int = 0
    id: str | None = None
    function: _FunctionPart | None = None


class ToolCallParts:
    """Joins the parts of streamed tool calls."""

    def __init__(self) -> None:
        self._calls: dict[int, tuple[list[str], list[Any], list[str]]] = {}

    def add(self, part: ToolCallPart) -> str:
        """Add a part, and return its text."""
        names, arguments, ids = self._calls.setdefault(part.index, ([], [], []))
        if part.id:
            ids.append(part.id)
        if part.function is None:
            return ""
        if part.function.name:
            names.append(part.function.name)
        if part.function.arguments is not None:
            arguments.append(part.function.arguments)
        return f"{part.function.name or ''}{part.function.arguments or ''}"

    def calls(self, redact: Callable[[str], str] = str) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(
                name=redact("".join(names)),
                arguments=_joined(arguments, redact),
                id="".join(ids[:1]),
            )
            for _, (names, arguments, ids) in sorted(self._calls.items())
        )


def _joined(parts: Sequence[Any], redact: Callable[[str], str]) -> Any:
    """Return the text of arguments; some servers send an object instead."""
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts[0]
    return redact("".join(map(str, parts)))


def chat_fields(messages: Sequence[Message], options: ChatOptions) -> dict[str, Any]:
    """Return the fields of a chat with optional arguments."""
    fields: dict[str, Any] = {"messages": _with_images(messages, options.get("images", ()))}
    if tools := options.get("tools"):
        fields["tools"] = [tool.declaration for tool in tools]
    if (thinking := options.get("thinking")) is not None:
        # llama.cpp, vLLM and SGLang hand it to the chat template.
        fields["chat_template_kwargs"] = {"enable_thinking": thinking}
    return fields | completion_fields(options)


def completion_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the arguments that completions have, too."""
    fields: dict[str, Any] = {}
    if (seed := options.get("seed")) is not None:
        fields["seed"] = seed
    if stop := options.get("stop"):
        fields["stop"] = list(stop)
    if (schema := options.get("schema")) is not None:
        named = {"name": "answer", "schema": schema}
        fields["response_format"] = {"type": "json_schema", "json_schema": named}
    return fields


class LlamaCppProperties(Struct, frozen=True):
    """What `/props` of llama.cpp's server reports of its model; releases differ."""

    modalities: Any = None
    chat_template_caps: Any = None
    chat_template: Any = None

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The capabilities that it claims, see `Engine`."""
        inputs = self.modalities if isinstance(self.modalities, dict) else {}
        template = self.chat_template_caps if isinstance(self.chat_template_caps, dict) else {}
        has = {
            "vision": inputs.get("vision"),
            "tools": template.get("supports_tool_calls"),
            "parallel_tools": template.get("supports_parallel_tool_calls"),
            "thinking": "enable_thinking" in str(self.chat_template),
        }
        return tuple(name for name, there in has.items() if there is True)


def _with_images(messages: Sequence[Message], images: Sequence[Image]) -> list[dict[str, Any]]:
    turns = list(map(_turn, messages))
    if images:
        parts = [{"type": "image_url", "image_url": {"url": image.data_uri}} for image in images]
        turns[-1]["content"] = [{"type": "text", "text": turns[-1]["content"]}, *parts]
    return turns


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _json(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        # The name is for templates that need it; OpenAI itself reads the id only.
        turn |= {"tool_call_id": message.tool_call_id, "name": message.tool_name}
    return turn


def _json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
