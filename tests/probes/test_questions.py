"""The questions of `fast` and `full`, and the grading of answers."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from pytest_lmstrix.core.types import Model, ProbeResult, Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.answers import whole_numbers
from pytest_lmstrix.probes.questions import (
    FULL,
    HELLO,
    NINETY_SIX,
    PROBES,
    SUM,
    Question,
    grade,
    grade_full,
)


def cut(text: str, reasoning: str = "") -> Reply:
    """A reply that exhausted its token budget."""
    return Reply(text=text, reasoning=reasoning, stop_reason="length")


@pytest.mark.parametrize("question", FULL, ids=lambda question: question.name)
def test_examples_do_not_contain_the_answer(question: Question) -> None:
    assert question.expected is not None
    assert str(question.expected) not in question.completion
    assert str(question.expected) not in question.chat
    assert question.operands == set(whole_numbers(question.chat))


@pytest.mark.parametrize("question", [HELLO, *FULL], ids=lambda question: question.name)
def test_completion_prompts_end_at_a_word_boundary(question: Question) -> None:
    assert re.search(r"\S\Z", question.completion)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (" 5", Verdict.OK),
        (" 5.\n", Verdict.OK),
        ("5\n\nQ: 3 + 4 = 7", Verdict.OK),
        ("\n\n5", Verdict.OK),
        (" 5 Q: 3 + 4 = 7", Verdict.OK),
        (" **5**", Verdict.OK),
        ("3\nQ: 5", Verdict.WRONG_ANSWER),
        (" 3 or 5", Verdict.WRONG_ANSWER),
        (" 15", Verdict.WRONG_ANSWER),
        (" 3.5", Verdict.WRONG_ANSWER),
        (" -5", Verdict.WRONG_ANSWER),
        ("?\n5", Verdict.WRONG_ANSWER),
        ("<think>\nIt is", Verdict.NO_ANSWER_IN_BUDGET),
        ("\n\n \n", Verdict.EMPTY_REPLY),
        ("", Verdict.EMPTY_REPLY),
    ],
    ids=ascii,
)
def test_completion(text: str, verdict: Verdict) -> None:
    assert grade(SUM, cut(text)) is verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("5", Verdict.OK),
        ("2 + 3 = 5", Verdict.OK),
        ("The sum of 2 and 3 is **5**.\n\nAnything else?", Verdict.OK),
        ("1. Take 2.\n2. Add 3.\n\nThat makes 5.", Verdict.OK),
        ("<think>4? no</think>5", Verdict.OK),
        ("2 + 3 = 6", Verdict.WRONG_ANSWER),
        ("4 or 5", Verdict.WRONG_ANSWER),
        ("I have 15 cats", Verdict.WRONG_ANSWER),
        ("2 + 3", Verdict.WRONG_ANSWER),
        ("<think>5</think>4", Verdict.WRONG_ANSWER),
        ("<think>5</think>", Verdict.EMPTY_REPLY),
        ("", Verdict.EMPTY_REPLY),
    ],
    ids=ascii,
)
def test_chat(text: str, verdict: Verdict) -> None:
    assert grade(SUM, Reply(text=text, stop_reason="stop"), "chat") is verdict


@pytest.mark.parametrize(
    "reply",
    [
        cut("<think>2 + 3 makes 5, but"),
        cut("", reasoning="2 + 3 makes 5, but"),
        cut("Let us add 2 and"),
        cut(""),
    ],
    ids=repr,
)
def test_budget_spent_before_a_chat_answer(reply: Reply) -> None:
    assert grade(SUM, reply, "chat") is Verdict.NO_ANSWER_IN_BUDGET


def test_the_reasoning_channel_does_not_count_as_an_answer() -> None:
    reply = Reply(text="", reasoning="It is 5.", stop_reason="stop")
    assert grade(SUM, reply, "chat") is Verdict.EMPTY_REPLY


@pytest.mark.parametrize("prompts", ["completion", "chat"])
def test_any_reply_but_silence_passes_hello(prompts: str) -> None:
    heard = [grade(HELLO, reply) for reply in (cut("!"), cut("<think>Hm"), cut("", "Hm"))]
    assert heard == [Verdict.OK] * 3
    assert grade(HELLO, cut(" \n\x00")) is Verdict.EMPTY_REPLY


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (" 96", " 5", Verdict.OK),
        (" 96", "", Verdict.OK),
        (" 90", " 5", Verdict.OK),
        (" 90", " 4", Verdict.WRONG_ANSWER),
        (" 90", "", Verdict.WRONG_ANSWER),
        ("<think>", " 4", Verdict.NO_ANSWER_IN_BUDGET),
        ("", "", Verdict.EMPTY_REPLY),
    ],
    ids=ascii,
)
def test_either_right_answer_passes(first: str, second: str, verdict: Verdict) -> None:
    assert grade_full((cut(first), cut(second)))[0] is verdict


def test_the_detail_names_the_error_and_is_sanitized() -> None:
    _, detail = grade_full((cut(" 96"), cut("\x1b[2J" + "4" * 500)))
    assert NINETY_SIX.name not in detail
    assert detail.startswith(r"2+3: wrong_answer, got '\x1b[2J444")
    assert len(detail) < 150


class Repeating:
    """A loaded model that answers with one text after the other."""

    def __init__(self, *texts: str) -> None:
        self.model = Model(id="m", engine="e")
        self._texts = iter(texts)

    def complete(self, prompt: str, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        return Reply(text=next(self._texts), completion_tokens=max_tokens)

    def chat(self, messages: object, *, max_tokens: int) -> Reply:
        return Reply(text="")


def probe(check: str, *texts: str) -> ProbeResult:
    return PROBES[check](cast(Any, Repeating(*texts)))


def test_one_repeated_token_does_not_pass_as_hello() -> None:
    result = probe("fast", "&" * 8)
    assert result.verdict is Verdict.WRONG_ANSWER
    assert result.detail == "repeats one token throughout ('&'): its weights may be damaged"
    assert result.notes == (result.detail,)
    assert probe("fast", " Hello, hello, hello").verdict is Verdict.OK
    assert probe("fast", "\n" * 8).verdict is Verdict.EMPTY_REPLY


def test_one_repeated_token_is_noted_in_full() -> None:
    result = probe("full", "&" * 8, "&" * 8)
    assert result.verdict is Verdict.WRONG_ANSWER
    assert result.notes == ("repeats one token throughout ('&'): its weights may be damaged",)
    result = probe("full", " 96" * 8, " 5" * 8)
    assert result.verdict is Verdict.OK
    assert result.notes == (
        "repeats one token throughout (' 96', ' 5'): its weights may be damaged",
    )
    assert probe("full", "&" * 8, " 5, of course").notes == ()
