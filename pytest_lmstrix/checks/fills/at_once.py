"""Fills that are sent at once: each has its own facts, and each is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from msgspec.structs import replace

from pytest_lmstrix.checks.granted import share
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.types import Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Instance
from pytest_lmstrix.probes.haystack import Haystack
from pytest_lmstrix.probes.recall import (
    LEAST_CONTROL,
    Control,
    Recall,
    ask_fact,
    ask_filled,
    grade_recall,
)

Filled = tuple[Haystack, Control]
"""What fills a context, and what is recalled without the prose."""
_WORST_FIRST = (Verdict.PROMPT_TRUNCATED, Verdict.RECALL_FAILED)


def ask_at_once(loaded: LoadedModel, filled: Sequence[Filled]) -> Recall:
    """Ask for every fact in each of the filled contexts, one question of each of them at a time.

    So all of them are in the engine's memory together.
    """
    haystack, control = min(filled, key=lambda each: each[1].score)
    if control.score < LEAST_CONTROL:
        return ask_filled(loaded, haystack, control)  # which asks for nothing
    rounds = [
        loaded.at_once([_question(each, number) for each in filled])
        for number in range(len(haystack.needles))
    ]
    by_fill = zip(filled, zip(*rounds, strict=True), strict=True)
    return _worst([grade_recall(*each, replies) for each, replies in by_fill], haystack.size)


def _question(filled: Filled, number: int) -> Callable[[Instance], Reply]:
    haystack, control = filled
    prompt = haystack.prose + haystack.needles[number].question
    return partial(ask_fact, prompt=prompt, form=control.form, max_tokens=control.answer_tokens)


def _worst(recalls: Sequence[Recall], size: int) -> Recall:
    """Return one result for all: the worst verdict, and the facts that all have recalled."""
    recalled = {
        depth: all(each.recalled[depth] for each in recalls) for depth in recalls[0].recalled
    }
    worst = min(recalls, key=lambda each: _badness(each.verdict))
    alike = [each for each in recalls if each.verdict is worst.verdict]
    detail = worst.detail
    if worst.verdict is Verdict.PROMPT_TRUNCATED:
        arrived = max(_arrived(each) for each in alike)
        detail = f"{share(len(recalls), arrived, size)}: {detail}"
    elif worst.verdict is not Verdict.OK:
        detail = f"{len(alike)} of {len(recalls)} requests at once: {detail}"
    replies = tuple(reply for each in recalls for reply in each.replies)
    return replace(worst, detail=detail, recalled=recalled, replies=replies)


def _badness(verdict: Verdict) -> int:
    return _WORST_FIRST.index(verdict) if verdict in _WORST_FIRST else len(_WORST_FIRST)


def _arrived(recall: Recall) -> int:
    return max(reply.prompt_tokens or 0 for reply in recall.replies)
