"""The facts of the tiers, and how their answers are graded."""

from __future__ import annotations

import re
from random import Random

import pytest

from pytest_lmstrix.probes.filler import sentence
from pytest_lmstrix.probes.haystack import MAX_SIZES, fill
from pytest_lmstrix.probes.needles import NEEDLE_KINDS
from pytest_lmstrix.probes.tiers.asked import likeliest_word, said_word
from pytest_lmstrix.probes.tiers.facts import CODE_WORDS, TierText

LADDER = (30_000, 40_000, 60_000)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def test_a_twentieth_of_the_sentences_are_rivals_and_none_gives_an_answer() -> None:
    haystacks = fill(1, LADDER, lambda text: len(text) // 4, tiers=True)
    prose = haystacks[-1].prose
    facts = re.findall(r"The code word of (\w+) is (\w+)\.", prose)
    assert len(facts) / prose.count(".") == pytest.approx(0.05, abs=0.01)
    for haystack in haystacks:
        assert haystack.tiers is not None
        assert all(text in haystack.prose for _, text in haystack.tiers.hidden)
        for question in haystack.tiers.questions["resist"]:
            assert prose.count(question.opening) == 1
            assert f"{question.opening} {question.answer}." in prose
        for question in haystack.tiers.questions["follow"]:
            assert question.opening not in prose
            owner = question.opening.split()[-2]
            (named,) = re.findall(rf"{owner} has the code word of (\w+)\.", prose)
            assert (named, question.answer) in facts


def test_the_facts_are_a_family_of_their_own() -> None:
    text = TierText(1)
    sizes = [text.facts() for _ in range(MAX_SIZES)]
    own = words(" ".join(each.control for each in sizes)) | set(CODE_WORDS)
    rivals = text.rivals(1)
    own |= words(" ".join(rival for _ in range(9_000) if (rival := rivals.next())))
    shared = {"the", "of", "is", "has"}
    answers = {answer.lower() for kind in NEEDLE_KINDS for answer in kind.answers}
    openings = words(" ".join(kind.opening for kind in NEEDLE_KINDS))
    rng = Random(0)
    prose = words(" ".join(sentence(rng) for _ in range(1_000)))
    assert (own - shared).isdisjoint(answers | openings | prose)
    assert len({word[0] for word in CODE_WORDS}) == len(CODE_WORDS)


@pytest.mark.parametrize(
    ("likeliest", "word"),
    [
        ({" a": -0.1, " lemon": -2.0, " zebra": -3.0}, "lemon"),
        ({" pill": -2.0, "Lemon": -1.0}, "lemon"),
        ({" umb": -1.0}, "umbrella"),
        ({" the": -0.1, " an": -0.2}, None),
        ({}, None),
    ],
)
def test_the_likeliest_code_word(likeliest: dict[str, float], word: str | None) -> None:
    assert likeliest_word(likeliest) == word


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        (" lemon.\n\nThe code word of York is zebra", "lemon"),
        (" **Lemon**", "lemon"),
        ("<think>zebra</think> It is lemon, not zebra.", "lemon"),
        (" lemonade", None),
        (" unknown. Lemon", None),
    ],
)
def test_the_code_word_of_a_reply(reply: str, word: str | None) -> None:
    assert said_word(reply) == word
