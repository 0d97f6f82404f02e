"""Separates reasoning from answers, where an engine leaves it in the text. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from pytest_lmstrix.core.types import Reply


def split_reasoning(text: str) -> tuple[str, str]:
    """Split `text` into reasoning and answer at `<think>` and `</think>`.

    Many chat templates open the reasoning themselves, so that only its end is in the text; and
    where the budget was spent on reasoning there is no end.
    """
    reasoning, closed, answer = text.partition("</think>")
    if not closed and not text.lstrip().startswith("<think>"):
        return "", text
    return reasoning.strip().removeprefix("<think>").strip(), answer.lstrip()


def with_reasoning_apart(reply: Reply) -> Reply:
    """Return `reply` with the reasoning in its text, unless the engine has found it already."""
    if reply.reasoning:
        return reply
    reasoning, text = split_reasoning(reply.text)
    return replace(reply, text=text, reasoning=reasoning)
