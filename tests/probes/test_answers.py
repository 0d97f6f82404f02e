"""Parsing of replies: reasoning, silence and whole numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.core.types import Reply
from pytest_lmstrix.probes.answers import (
    is_silence,
    repeated_token,
    whole_numbers,
    without_reasoning,
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("I have 15 cats", [15]),
        ("96.", [96]),
        ("**96**", [96]),
        ("$\\boxed{96}$", [96]),
        ("_96_", [96]),
        ("(96)", [96]),
        ("2+3=5", [2, 3, 5]),
        ("2 + 3 = 5", [2, 3, 5]),
        ("- 5", [5]),
        ("+5", [5]),
        ("05", [5]),
        ("5.0", [5]),
        ("5.5", [None]),
        (".5", [None]),
        ("-5", [None]),
        ("\N{MINUS SIGN}5", [None]),
        ("GPT-5", [None]),
        ("5th", [None]),
        ("x5", [None]),
        ("1,096", [None]),
        ("1'096", [None]),
        ("1 096", [1, 96]),
        ("9/6", [None]),
        ("10:05", [None]),
        ("5e3", [None]),
        ("1.2.5", [None]),
        ("\N{SUPERSCRIPT TWO}5", [25]),
        ("5\N{SUPERSCRIPT TWO}", [52]),
        ("5\N{VULGAR FRACTION ONE HALF}", [None]),
        ("\N{FULLWIDTH DIGIT FIVE}", [5]),
        ("\N{ARABIC-INDIC DIGIT FIVE}", [5]),
        ("答案是5。", [5]),
        ("5e\N{COMBINING ACUTE ACCENT}", [5]),
        ("e\N{COMBINING ACUTE ACCENT}5", [5]),
        ("5-6", [5, None]),
        ("ninety-96", [None]),
        ("9" * 5000, [None]),
        ("ninety-six", []),
        ("", []),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_whole_numbers_are_extracted(text: str, numbers: list[int | None]) -> None:
    assert whole_numbers(text) == numbers


@given(st.integers(0, 10**9), st.sampled_from([" {}.", "{}\n", "({})", "is {}!", "{}, so"]))
def test_a_number_is_found_among_punctuation(number: int, around: str) -> None:
    assert whole_numbers(around.format(number)) == [number]


@pytest.mark.parametrize(
    "text",
    [
        "a" * 10**6,
        "-" * 10**6,
        "<think>" * 10**5,
        "\u0301\u0323" * 10**6,
        "\u05b1\u05b0" * 10**6,
        "答" * 10**6,
    ],
    ids=["letters", "signs", "tags", "marks", "points", "ideographs"],
)
def test_hostile_text_is_read_in_linear_time(text: str) -> None:
    without_reasoning(text)
    assert whole_numbers(text) == []


@given(st.text())
def test_any_text_is_parsed(text: str) -> None:
    assert all(number is None or number >= 0 for number in whole_numbers(text))
    assert len(without_reasoning(text)) <= len(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("5", "5"),
        ("<think>is it 4?</think>\n5", "\n5"),
        ("<think>is it 4?", ""),
        ("is it 4?</think>5", "5"),
        ("<THINK>a</THINK>b<think>c</think>d", "bd"),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("[THINK]4[/THINK]5", "5"),
        ("◁think▷4◁/think▷5", "5"),
        ("<thinking>4</thinking>5", "5"),
        ("<seed:think>4</seed:think>5", "5"),
        ("<|START_THINKING|>4<|END_THINKING|>5", "5"),
        ("<|begin_of_thought|>4<|end_of_thought|>5", "5"),
        (
            "<|channel|>analysis<|message|>4<|end|><|start|>assistant"
            "<|channel|>final<|message|>5<|return|>",
            "5",
        ),
        ("<|channel>thought\n4<channel|>5", "5"),
    ],
    ids=ascii,
)
def test_reasoning_is_stripped_from_the_answer(text: str, answer: str) -> None:
    assert without_reasoning(text) == answer


@pytest.mark.parametrize(
    "text", ["", " \n\t\r", "\x00\x1b\x7f", "\u200b\ufeff\u2028\xa0\u3000"], ids=ascii
)
def test_silent_replies(text: str) -> None:
    assert is_silence(text)


@pytest.mark.parametrize("text", ["!", "\N{WAVING HAND SIGN}", "\u200ba", "ё", "\ufffd"], ids=ascii)
def test_replies_that_are_not_silent(text: str) -> None:
    assert not is_silence(text)


@pytest.mark.parametrize(
    ("text", "tokens", "token"),
    [
        ("&&&&&&&&", 8, "&"),
        ("&&&&&&&&", 4, "&"),
        ("&&&&&&&&", None, "&"),
        ("hello hello hello hello", 4, " hello"),
        ("\n5\n5\n5\n5", 4, "\n5"),
        ("&&&&&&&&", 9, "&"),
        ("ha ha ha ha ha", 10, None),
        ("&&&&&&&x", 8, None),
        ("...", 3, None),
        ("Hello!", 2, None),
        ("", 0, None),
    ],
)
def test_one_token_repeated_throughout(text: str, tokens: int | None, token: str | None) -> None:
    assert repeated_token(Reply(text=text, completion_tokens=tokens)) == token
    assert repeated_token(Reply(text="", reasoning=text, completion_tokens=tokens)) == token
