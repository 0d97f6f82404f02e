"""The simulated language model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_lmstrix.probes.haystack import fill
from tests.standin.lmstudio.models import brain

PROSE = "The rain fell on the roof of the mill. Nobody came up the road that day. " * 200


@settings(deadline=None)
@given(st.text())
def test_joined_tokens_equal_the_text(text: str) -> None:
    assert "".join(brain.tokenize(text)) == text


@settings(deadline=None)
@given(st.text(), st.text())
def test_token_counts_of_whole_words_add_up(one: str, two: str) -> None:
    together = brain.count_tokens(f"{one}\n{two}")
    assert together == brain.count_tokens(one) + 1 + brain.count_tokens(two)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_shared_prefix_is_the_longest_common_prefix(one: list[str], two: list[str]) -> None:
    n = brain.shared_prefix(one, two)
    assert one[:n] == two[:n]
    assert one[n : n + 1] != two[n : n + 1] or one[n:] == two[n:] == []


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        pytest.param("1 + 1 = 2\n4 + 4 = 8\n2 + 3 =", "5", id="sum few-shot"),
        pytest.param("2+3=", "5", id="sum alone"),
        pytest.param("Q: 1+1\nA: 2\nQ: 40+2\nA:", "42", id="sum as question and answer"),
        pytest.param("What is 2 + 3? Reply with the number only.", "5", id="sum in a chat"),
        pytest.param("twelve: 12\nforty-one: 41\nninety-six:", "96", id="words few-shot"),
        pytest.param("Write 'ninety-six' as a number using only digits", "96", id="words asked"),
        pytest.param("seventeen = 17\ntwelve =", "12", id="number word with equals sign"),
        pytest.param("- Say goodbye: Goodbye!\n- Say hello:", "Hello!", id="hello few-shot"),
        pytest.param("Say hello", "Hello!", id="hello"),
        pytest.param(
            "The pass key is 48213. " + PROSE + "The pass key is", " 48213.", id="recall a number"
        ),
        pytest.param(
            PROSE + "The captain of the three ships is Marlow. " + PROSE + "\nThe captain of the"
            " three ships is",
            " Marlow.",
            id="recall a name despite a number word",
        ),
        pytest.param(
            "The door is painted orange. The door of the mill is painted blue. "
            + PROSE
            + "Answer: The door of the mill is painted",
            " blue.",
            id="recall by the longest match",
        ),
        pytest.param(
            "The pass key is 48213. " + PROSE + "What is the pass key?", " 48213.", id="question"
        ),
    ],
)
def test_replies_to_known_prompts_are_correct(prompt: str, reply: str) -> None:
    assert brain.answer(prompt) == reply


@pytest.mark.parametrize("seed", range(5))
def test_hidden_facts_are_recalled(seed: int) -> None:
    for haystack in fill(seed, [1024, 4096], brain.count_tokens):
        for needle in haystack.needles:
            assert needle.recalled(brain.answer(haystack.prose + needle.question))
            assert needle.recalled(brain.answer(haystack.control + needle.question))


@pytest.mark.parametrize("prompt", ["", "\n", PROSE, "The pass key is"])
def test_a_prompt_without_facts_gets_a_neutral_reply(prompt: str) -> None:
    reply = brain.answer(prompt)
    assert reply.strip()
    assert not any(c.isdigit() for c in reply)


@settings(deadline=None)
@given(st.text())
def test_any_prompt_gets_a_reply(prompt: str) -> None:
    assert brain.answer(prompt)
