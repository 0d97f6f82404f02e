"""Needle-in-a-haystack prompts: facts hidden in filler text that fills a context."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.filler import sentence
from pytest_lmstrix.probes.haystack import (
    ANSWER_TOKENS,
    DEPTHS,
    MAX_SIZES,
    Haystack,
    Needle,
    fill,
)
from pytest_lmstrix.probes.needles import NEEDLE_KINDS

CountTokens = Callable[[str], int]
LONGEST_SENTENCE = 95


def words(text: str) -> int:
    """Every word and every punctuation mark is a token."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def merging(longest: int, odd: str) -> CountTokens:
    """Words in parts of at most `longest` letters; `odd` is joined to what follows."""
    token = re.compile(rf"{re.escape(odd)}\s*\w{{0,{longest}}}|\s?\w{{1,{longest}}}|\W")
    return lambda text: len(token.findall(text))


TOKENIZERS: dict[str, CountTokens] = {
    "words": words,
    "characters": len,
    "thirds": lambda text: -(-len(text) // 3),
    "spaces": lambda text: len(text.split(" ")),
    "pairs": lambda text: len(re.findall(r"\w+ \w+|\w+|\W", text)),
}
tokenizers = st.one_of(
    st.sampled_from(list(TOKENIZERS.values())),
    st.builds(merging, st.integers(2, 9), st.sampled_from([".", "\n\n", "The", "e", "s "])),
)
ladders = st.lists(st.sampled_from([1500, 2048, 3000, 4096, 6000, 8192]), min_size=1)


def depth_of(needle: Needle, prose: str) -> float:
    """Position of a fact, as a fraction of the possible positions."""
    return prose.index(needle.sentence) / (len(prose) - len(needle.sentence))


def assert_fills(haystack: Haystack, count_tokens: CountTokens) -> None:
    """Check that the context is full and that every prompt fits it."""
    room = haystack.size - ANSWER_TOKENS
    used = tuple(count_tokens(haystack.prose + n.question) for n in haystack.needles)
    assert haystack.prompt_tokens == used
    assert max(used) < room
    assert max(used) >= 0.98 * room


def begin_of_each(haystacks: Sequence[Haystack]) -> dict[str, float]:
    """The target depth of each fact: its own, or after the facts with smaller depths."""
    places = sorted(
        (needle.depth * (len(haystack.prose) - len(needle.sentence)), needle.sentence)
        for haystack in haystacks
        for needle in haystack.needles
    )
    begins, end = {}, 0.0
    for place, fact in places:
        begins[fact] = max(place, end)
        end = begins[fact] + len(f"{fact}\n\n")
    return begins


@settings(deadline=None, max_examples=30)
@example(41973, [1500, 2048, 3000, 4096, 6000, 8192], len)
@given(st.integers(0, 2**32), ladders, tokenizers)
def test_every_ladder_size_is_filled(
    seed: int, sizes: list[int], count_tokens: CountTokens
) -> None:
    haystacks = fill(seed, sizes, count_tokens)
    assert [haystack.size for haystack in haystacks] == sorted(set(sizes))
    begins = begin_of_each(haystacks)
    prose = ""
    for haystack in haystacks:
        assert_fills(haystack, count_tokens)
        assert haystack.prose.startswith(prose)
        prose = haystack.prose
        assert tuple(needle.depth for needle in haystack.needles) == DEPTHS
        near = LONGEST_SENTENCE + 0.01 * len(haystacks[-1].prose)  # not inside a sentence
        for needle in haystack.needles:
            assert prose.count(needle.opening) == 1
            begin = prose.index(needle.sentence)
            assert begin == pytest.approx(begins[needle.sentence], abs=near)
    openings = [needle.opening for haystack in haystacks for needle in haystack.needles]
    assert len(set(openings)) == len(openings) == 5 * len(haystacks)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 1000), tokenizers)
def test_small_sizes_are_filled_or_refused(seed: int, size: int, count_tokens: CountTokens) -> None:
    refused = None
    try:
        (haystack,) = fill(seed, [size], count_tokens)
    except Failure as failure:
        refused = failure
    if refused is not None:
        assert refused.verdict is Verdict.INCONCLUSIVE
        assert f"{size:,} tokens is too small" in refused.text
    else:
        assert_fills(haystack, count_tokens)
        assert all(needle.sentence in haystack.prose for needle in haystack.needles)


def test_a_size_without_room_for_the_facts_is_inconclusive() -> None:
    with pytest.raises(Failure, match="a context of 64 tokens is too small to hide 5 facts"):
        fill(1, [64], words)


@pytest.mark.parametrize("size", [1024, 30_000])
@pytest.mark.parametrize("tokenizer", ["words", "thirds"])
def test_facts_are_near_their_depths(size: int, tokenizer: str) -> None:
    (haystack,) = fill(5, [size], TOKENIZERS[tokenizer])
    tolerance = 0.03 if size == 1024 else 0.005
    for needle in haystack.needles:
        assert depth_of(needle, haystack.prose) == pytest.approx(needle.depth, abs=tolerance)


def test_a_word_tokenizer_fits_every_question_from_1024_tokens() -> None:
    for seed in range(20):
        (haystack,) = fill(seed, [1024], words)
        assert min(haystack.prompt_tokens) >= 0.98 * (1024 - ANSWER_TOKENS)


def test_the_seed_determines_the_text() -> None:
    assert fill(1, [1024, 2048], words) == fill(1, [2048, 1024], words)
    (one,), (two,) = fill(1, [1024], words), fill(2, [1024], words)
    assert one.prose != two.prose
    assert one.needles != two.needles


def test_a_whole_ladder_needs_few_token_counts() -> None:
    sizes = [30_000, 40_000, 60_000, 80_000, 100_000, 120_000, 131_071]
    counted: list[int] = []

    def count_tokens(text: str) -> int:
        counted.append(len(text) // 4)
        return counted[-1]

    haystacks = fill(7, sizes, count_tokens)
    assert len(haystacks) == len(sizes)
    assert sum(counted) < 12 * sum(sizes)


def test_too_many_sizes_for_one_text_are_refused() -> None:
    with pytest.raises(ValueError, match=f"one text serves at most {MAX_SIZES}"):
        fill(1, range(1000, 1001 + MAX_SIZES), words)


def test_an_engine_that_counts_no_tokens_is_an_engine_error() -> None:
    with pytest.raises(Failure, match="0 tokens counted in prose") as raised:
        fill(1, [1024], lambda text: 0)
    assert raised.value.verdict is Verdict.ENGINE_ERROR


def test_inconsistent_token_counts_terminate() -> None:
    with pytest.raises(Failure, match="too small"):
        fill(1, [1024], lambda text: 1 + len(text) % 977)


def test_the_control_prompt_has_only_the_facts() -> None:
    (haystack,) = fill(3, [1024], words)
    assert haystack.control.splitlines() == [needle.sentence for needle in haystack.needles]


@pytest.mark.parametrize(
    ("answer", "reply", "recalled"),
    [
        ("48213", " 48213.\n\nThe name", True),
        ("48213", " 48213", True),
        ("48213", "\n48213", True),
        ("48213", " 148213.", False),
        ("48213", " 4821", False),
        ("48213", " 482133.", False),
        ("48213", " unknown. It is 48213.", False),
        ("48213", " unknown\n48213", False),
        ("Marlow", " marlow.", True),
        ("Marlow", " Captain Marlow, of course.", True),
        ("Marlow", " Marlowe.", False),
        ("Marlow", "", False),
        ("fur", " **fur**", True),
        ("fur", " furniture", False),
    ],
    ids=ascii,
)
def test_recalled_facts(answer: str, reply: str, recalled: bool) -> None:
    assert Needle(depth=0.5, opening="It is", answer=answer).recalled(reply) is recalled


def test_the_largest_size_has_the_preferred_facts() -> None:
    ranks = {kind.opening: rank for rank, kind in enumerate(NEEDLE_KINDS)}
    for seed in range(5):
        sizes = [
            {ranks[needle.opening] for needle in haystack.needles}
            for haystack in fill(seed, (1_024, 1_500, 2_048), words)
        ]
        assert max(sizes[-1]) < 10
        assert max(sizes[0]) >= 10
        assert set().union(*sizes) == set(range(15))


def test_fact_kinds_are_distinct() -> None:
    openings = [kind.opening for kind in NEEDLE_KINDS]
    assert len(openings) >= 5 * 7
    for opening in openings:
        assert [other for other in openings if other.startswith(opening)] == [opening]
    answers = [answer.lower() for kind in NEEDLE_KINDS for answer in kind.answers]
    assert len(set(answers)) == len(answers)
    assert min(len(kind.answers) for kind in NEEDLE_KINDS) >= 5
    words = set(re.findall(r"\w+", " ".join(openings).lower()))
    assert words.isdisjoint(answers)


def test_the_filler_text_does_not_mention_the_facts() -> None:
    rng = Random(0)
    prose = set(re.findall(r"\w+", " ".join(sentence(rng) for _ in range(5000)).lower()))
    answers = {answer.lower() for kind in NEEDLE_KINDS for answer in kind.answers}
    colours = {"red", "green", "blue", "black", "white", "brown", "grey", "pink", "golden"}
    numbers = {"one", "two", "three", "four", "five", "ten", "dozen", "hundred", "first", "second"}
    subjects = {kind.opening.split()[1] for kind in NEEDLE_KINDS}
    assert prose.isdisjoint(answers | colours | numbers | subjects)
    assert not any(character.isnumeric() for word in prose for character in word)
