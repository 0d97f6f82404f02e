"""Reads errors of OpenAI-compatible servers, which have them in many shapes."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

_WORDS = ("message", "msg", "detail", "error", "errors")
"""Fields with the words of an error, or with another object that has them."""
_TITLE = re.compile(r"<title>([^<]{1,300})</title>", re.IGNORECASE)
_DEPTH = 4
_OTHER_BUDGET = re.compile(r"\buse\W{1,3}max_completion_tokens\b", re.I)
"""Not each refusal that names it: vLLM does where the budget is too large for the context."""
_NO_GREEDY = re.compile(
    r"\btemperature\b.{0,40}(?:strictly positive|not support|unsupported|greater than 0)", re.I
)


class ServerError(Struct, frozen=True):
    """An error of a server."""

    message: str
    name: str | None = None
    """Its code for classification."""


class AcceptedFields:
    """The fields of a request for an answer that a server accepts, as its refusals teach."""

    def __init__(self) -> None:
        self._budget = "max_tokens"
        self._usage: dict[str, object] = {"stream_options": {"include_usage": True}}
        self.takes_greedy = True
        """Whether it takes a temperature of 0."""

    def of(self, max_tokens: int, temperature: float) -> dict[str, object]:
        fields: dict[str, object] = {self._budget: max_tokens, "stream": True, **self._usage}
        if self.takes_greedy or temperature:
            fields["temperature"] = temperature
        return fields

    def learn(self, refusal: str, temperature: float) -> bool:
        """Return whether a request is worth another try without what the `refusal` names."""
        if "stream_options" in refusal and self._usage:
            self._usage = {}
        elif _OTHER_BUDGET.search(refusal) and self._budget == "max_tokens":
            self._budget = "max_completion_tokens"  # of OpenAI's newer models, and their proxies
        elif _NO_GREEDY.search(refusal) and self.takes_greedy and not temperature:
            self.takes_greedy = False  # Text Generation Inference, OpenAI's reasoning models
        else:
            return False
        return True


def error_in(answer: bytes) -> ServerError | None:
    """Return the error in an answer that is one, or `None` if it has none in a known shape."""
    found = _decoded(answer)
    if not isinstance(found, dict) or not (words := _words(found)):
        return None
    error = found.get("error")
    holder = error if isinstance(error, dict) else found
    names = (holder.get("code"), holder.get("type"))
    return ServerError(words, next((name for name in names if isinstance(name, str)), None))


def is_error(answer: bytes) -> bool:
    """Whether an answer is an error in spite of its status, or of the events before it."""
    if b'"error' not in answer:
        return False
    found = _decoded(answer)
    return isinstance(found, dict) and bool(found.get("error") or found.get("object") == "error")


def refusal_words(answer: bytes) -> str:
    """Return the words of an answer that is an error: of a page its title."""
    text = answer.decode(errors="replace").strip()
    title = _TITLE.search(text) if text.startswith("<") else None
    return title[1].strip() if title else text


def _decoded(answer: bytes) -> Any:
    try:
        return msgspec.json.decode(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _words(found: Any, depth: int = _DEPTH) -> str:
    """Return the words of an error: a text, the first field that has some, or those of a list."""
    if isinstance(found, str):
        return found.strip()
    if depth and isinstance(found, dict):
        return next((words for name in _WORDS if (words := _words(found.get(name), depth - 1))), "")
    if depth and isinstance(found, list):
        return "; ".join(filter(None, (_words(each, depth - 1) for each in found[:5])))
    return ""
