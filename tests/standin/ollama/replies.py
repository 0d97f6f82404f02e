"""The replies of a stand-in Ollama: prompts are cut without an error, as its releases do."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.models import brain
from tests.standin.lmstudio.models.asked import Asked, Called
from tests.standin.lmstudio.models.minds import Message, Mind, Prediction, Request, render
from tests.standin.ollama.machine import Machine, Resident, tagged
from tests.standin.ollama.quirks import RUNNER_GONE, OllamaError, Quirks

KEEP = 4
"""Tokens at the beginning of a prompt that are not cut."""


def predict(
    machine: Machine, resident: Resident, body: dict[str, Any], *, chat: bool
) -> Prediction:
    """Compute the reply to a request.

    Raises:
        OllamaError: It fails.
    """
    quiet = body.get("think") is False
    mind = resident.silent_mind if quiet else resident.mind
    messages = _messages(body)
    messages = messages or [Message(role="user", text=body.get("prompt", ""))]
    chat = chat or not body.get("raw")
    messages = _fitting(messages, resident, body, machine.quirks, chat=chat)
    name = tagged(body["model"])
    machine.attempts[f"predict {name}"] += 1
    options = body.get("options", {})
    request = Request(
        messages=tuple(messages),
        chat=chat,
        max_tokens=options.get("num_predict"),
        temperature=options.get("temperature", 0.8),
        overflow_policy="stopAtLimit",
        stop_strings=tuple(options.get("stop", ())),
        attempt=machine.attempts[f"predict {name}"],
        asked=_asked(body),
    )
    try:
        return mind.predict(request)
    except Refused as refused:
        if refused.fatal:
            raise OllamaError(500, RUNNER_GONE) from None
        raise OllamaError(500, refused.error.title) from None


def _messages(body: dict[str, Any]) -> list[Message]:
    """Return the messages of a chat: each result of a tool names its call."""
    messages: list[Message] = []
    calls: dict[str, Called] = {}
    for message in body.get("messages", ()):
        for each in message.get("tool_calls", ()):
            function = each["function"]
            if not isinstance(function["arguments"], dict):
                raise OllamaError(400, "json: cannot unmarshal string into Go struct field")
            calls[each["id"]] = Called(function["name"], json.dumps(function["arguments"]))
        call = None
        if message["role"] == "tool":
            call = calls[message["tool_call_id"]]
            assert call.name == message["tool_name"], message
        messages.append(Message(role=message["role"], text=message["content"], called=call))
    return messages


def _asked(body: dict[str, Any]) -> Asked:
    images = [data for message in body.get("messages", ()) for data in message.get("images", ())]
    return Asked(
        seed=body.get("options", {}).get("seed"),
        schema=body.get("format"),
        tools=tuple(body.get("tools", ())),
        images=len(images),
        pictures=tuple(b64decode(data, validate=True) for data in images),
    )


def _fitting(
    messages: list[Message], resident: Resident, body: dict[str, Any], quirks: Quirks, *, chat: bool
) -> list[Message]:
    """Cut the prompt to the context, or refuse it where the request and the release do."""
    room = resident.context_length - 1 - resident.model.bos_tokens
    excess = _tokens(messages, resident.mind, chat=chat) - room
    if excess <= 0:
        return messages
    if body.get("truncate") is False and quirks.release >= (0, 12, 6):
        raise OllamaError(400, "the input length exceeds the context length")
    *_, last = messages
    sent = brain.tokenize(last.text)
    around = _tokens([last], resident.mind, chat=chat) - len(sent)
    left = room - around
    if quirks.release >= (0, 30, 11):
        left = room - (room - KEEP) // 2 - around
    return [Message(role=last.role, text="".join([*sent[:KEEP], *sent[KEEP - left :]]))]


def _tokens(messages: list[Message], mind: Mind, *, chat: bool) -> int:
    text = render(messages) if chat else "".join(message.text for message in messages)
    return len(mind.tokenize(text))


def pieces(prediction: Prediction) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of a reply, each with whether it is reasoning."""
    for text, kind in prediction.pieces:
        if kind in ("none", "reasoning"):
            yield text, kind == "reasoning"


def last_fields(prediction: Prediction, quirks: Quirks) -> dict[str, Any]:
    """Return the fields of the last line: durations in nanoseconds, zeros are left out."""
    counted = prediction.prompt_tokens or 0
    if quirks.release < (0, 4, 0):
        counted -= prediction.cached_tokens
    elif quirks.release == (0, 30, 0):
        counted = max(1, counted - prediction.cached_tokens)
    ended = prediction.stop_reason in ("maxPredictedTokensReached", "contextLengthReached")
    fields = {
        "done": True,
        "done_reason": "length" if ended else "stop",
        "load_duration": 1_000_000,
        "prompt_eval_count": counted,
        "prompt_eval_duration": int(prediction.ttft_seconds * 1e9),
        "eval_count": prediction.predicted_tokens,
        "eval_duration": int(prediction.predicted_tokens / prediction.tokens_per_second * 1e9),
    }
    return {name: value for name, value in fields.items() if value}
