"""The probe of `deep`: whether a model recalls the facts hidden in its filled context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_lmstrix.core.types import Message, Prompts, Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.answers import is_silence, without_reasoning
from pytest_lmstrix.probes.haystack import ANSWER_TOKENS, DEPTHS, SPECIAL_TOKENS, Haystack

if TYPE_CHECKING:
    from pytest_lmstrix.engines.base import Instance

PASS_MARK = 0.85
"""Share of its own control score that a model has to reach."""
LEAST_CONTROL = 3
"""Facts that a model must recall from a few lines, or else `deep` is inconclusive."""


class Control(Struct, frozen=True, kw_only=True):
    """The result of asking without the prose."""

    score: int
    """Facts recalled, 0..5."""
    special_tokens: int = 0
    """Tokens that the engine adds to every prompt; negative where `count_tokens` counts tokens
    that a prompt does not have. Of a chat those of its template."""
    form: Prompts = "completion"
    """The form in which the facts are asked for."""
    answer_tokens: int = ANSWER_TOKENS
    """Budget of each reply."""
    unanswered: bool = False
    """Whether most replies had nothing, or only reasoning."""


class Recall(Struct, frozen=True, kw_only=True):
    """The facts recalled from one haystack, and the verdict."""

    verdict: Verdict
    detail: str = ""
    recalled: dict[str, bool]
    """Depth such as "0.25" -> whether the fact hidden there was recalled."""
    replies: tuple[Reply, ...] = ()
    """To the questions in the order of their depths; empty when they were not asked."""


def ask_control(
    instance: Instance,
    haystack: Haystack,
    form: Prompts = "completion",
    answer_tokens: int = ANSWER_TOKENS,
) -> Control:
    """Ask for the facts without the prose.

    Call it for all sizes before the first `ask_filled`: it drops the prose from the prefix cache.
    """
    prompts = [haystack.control + needle.question for needle in haystack.needles]
    replies = [ask_fact(instance, prompt, form, answer_tokens) for prompt in prompts]
    counted = replies[0].prompt_tokens
    offset = 0 if counted is None else counted - instance.count_tokens(prompts[0])
    most = SPECIAL_TOKENS if form == "completion" else max(0, offset)
    return Control(
        score=_recalled(haystack, replies),
        special_tokens=max(-SPECIAL_TOKENS, min(offset, most)),
        form=form,
        answer_tokens=answer_tokens,
        unanswered=sum(is_silence(without_reasoning(reply.text)) for reply in replies)
        >= LEAST_CONTROL,
    )


def template_tokens(instance: Instance) -> int:
    """Return how many tokens the chat template adds to a message; 0 if that is not counted.

    Raises:
        Failure: The model cannot be asked through its template.
    """
    text = "Say hello"
    reply = instance.chat((Message(role="user", content=text),), max_tokens=ANSWER_TOKENS)
    counted = reply.prompt_tokens
    return 0 if counted is None else max(0, counted - instance.count_tokens(text))


def _recalled(haystack: Haystack, replies: Sequence[Reply]) -> int:
    pairs = zip(haystack.needles, replies, strict=True)
    return sum(needle.recalled(without_reasoning(reply.text)) for needle, reply in pairs)


def ask_filled(instance: Instance, haystack: Haystack, control: Control) -> Recall:
    """Fill the context and ask for every fact, unless the control score is too low to judge by."""
    if control.score < LEAST_CONTROL:
        verdict, detail = judge_deep(control.score, {})
        return Recall(verdict=verdict, detail=detail, recalled={})
    replies = tuple(
        ask_fact(instance, haystack.prose + n.question, control.form, control.answer_tokens)
        for n in haystack.needles
    )
    return grade_recall(haystack, control, replies)


def grade_recall(haystack: Haystack, control: Control, replies: tuple[Reply, ...]) -> Recall:
    """Grade the replies to the questions of a haystack, in the order of its needles."""
    recalled = {
        f"{needle.depth:g}": needle.recalled(without_reasoning(reply.text))
        for needle, reply in zip(haystack.needles, replies, strict=True)
    }
    verdict, detail = judge_deep(control.score, recalled)
    for tokens, reply in zip(haystack.prompt_tokens, replies, strict=True):
        sent = tokens + control.special_tokens
        if reply.prompt_tokens is not None and reply.prompt_tokens < sent:
            verdict = Verdict.PROMPT_TRUNCATED
            detail = f"sent {sent:,} prompt tokens, {reply.prompt_tokens:,} arrived"
            break
    return Recall(verdict=verdict, detail=detail, recalled=recalled, replies=replies)


def judge_deep(control: int, recalled: dict[str, bool]) -> tuple[Verdict, str]:
    """Return `ok`, `recall_failed` or `inconclusive`, with the reason in one line.

    `control` is the number of facts recalled without the prose.
    """
    if control < LEAST_CONTROL:
        detail = f"recalls {control} of {len(DEPTHS)} facts from a few lines"
        return Verdict.INCONCLUSIVE, detail
    if sum(recalled.values()) >= PASS_MARK * control:
        return Verdict.OK, ""
    lost = ", ".join(f"{float(depth):.0%}" for depth, was in recalled.items() if not was)
    return Verdict.RECALL_FAILED, f"does not recall what is hidden at a depth of {lost}"


def ask_fact(instance: Instance, prompt: str, form: Prompts, max_tokens: int) -> Reply:
    """Ask for the fact that `prompt` ends with."""
    if form == "chat":
        return instance.chat((Message(role="user", content=prompt),), max_tokens=max_tokens)
    return instance.complete(prompt, max_tokens=max_tokens)
