"""Asks for the tiers of `deep`, and grades the answers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from pytest_lmstrix.core.checks import Tier
from pytest_lmstrix.core.types import Message, Prompts, Reply
from pytest_lmstrix.probes.answers import without_reasoning
from pytest_lmstrix.probes.tiers.facts import CODE_WORDS, TierFacts, TierQuestion

if TYPE_CHECKING:
    from pytest_lmstrix.engines.base import Instance

    class Ranking(Instance, Protocol):
        """A loaded model that may give log-probabilities."""

        def rank(self, prompt: str) -> Reply | None:
            """Return `Reply.likeliest` after `prompt`; `None` if the engine does not give it."""


ENOUGH = 2
"""Right answers out of three that a tier needs, in its control and in the filled context."""
_ANSWER_TOKENS = 12
_CHAT_TOKENS = 48  # no room for reasoning: it would cost more time than the verdict
_LEAST_LETTERS = 3  # of a first token: " a" may begin "anchor", or be a word of its own
_WORD = re.compile(rf"\b(?:{'|'.join(CODE_WORDS)})\b", re.IGNORECASE)


def scores(
    instance: Ranking, text: str, facts: TierFacts, form: Prompts, tiers: Iterable[Tier]
) -> dict[Tier, int]:
    """Return how many questions of each of `tiers` are answered rightly after `text`."""
    return {
        tier: sum(
            _answer(instance, text, each, form) == each.answer for each in facts.questions[tier]
        )
        for tier in tiers
    }


def _answer(instance: Ranking, text: str, question: TierQuestion, form: Prompts) -> str | None:
    """Return the code word that the model takes for the answer."""
    prompt = text + question.tail
    if form == "chat":
        message = Message(role="user", content=prompt)
        return said_word(instance.chat((message,), max_tokens=_CHAT_TOKENS).text)
    ranked = instance.rank(prompt)
    if ranked is not None and (word := likeliest_word(ranked.likeliest)) is not None:
        return word
    return said_word(instance.complete(prompt, max_tokens=_ANSWER_TOKENS).text)


def likeliest_word(likeliest: Mapping[str, float]) -> str | None:
    """Return the code word whose first token has the highest log-probability."""
    best, found = -math.inf, None
    for token, value in likeliest.items():
        start = token.strip().lower()
        word = next((word for word in CODE_WORDS if word.startswith(start)), None)
        if word is not None and len(start) >= _LEAST_LETTERS and value > best:
            best, found = value, word
    return found


def said_word(reply: str) -> str | None:
    """Return the first code word of the first sentence of `reply`."""
    first = re.split(r"[.!?\n]", without_reasoning(reply).strip(), maxsplit=1)[0]
    match = _WORD.search(first)
    return match[0].lower() if match else None
