"""The probe of `speed`: which tokens it times, by which clock, and when it gives no rate."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LEAST_RATE_TOKENS, ProbeResult, Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.speed import REPETITIONS, measure, result_of
from pytest_lmstrix.probes.speed_text import (
    DECODE_TOKENS,
    PREFILL_TOKENS,
    Amounts,
    Fill,
    SpeedTexts,
    amounts_of,
)
from tests.standin.lmstudio.models.brain import shared_prefix

FILLED = 4_096
OVERHEAD = 0.01
"""Seconds of a request besides prefill and decode."""


def words(text: str) -> list[str]:
    return re.findall(r"\S+", text)


class Speaker:
    """A model whose tokens are words: it prefills 1,000 a second, and decodes 50."""

    def __init__(
        self,
        *,
        keeps: bool = True,
        counts_cached: bool = True,
        times: bool = True,
        streams: bool = True,
        most: int = 10_000,
        room: int = 10_000_000,
    ) -> None:
        self.prompts: list[str] = []
        self.asked: list[int] = []
        self._keeps = keeps
        self._counts_cached = counts_cached
        self._times = times
        self._streams = streams
        self._most = most
        self._room = room
        self._cached: list[str] = []

    def count_tokens(self, text: str) -> int:
        return len(words(text))

    def generate(self, prompt: str, *, tokens: int) -> Reply:
        self.prompts.append(prompt)
        self.asked.append(tokens)
        sent = words(prompt)[-self._room :]
        cached = shared_prefix(self._cached, sent) if self._keeps else 0
        cached = min(cached, len(sent) - 1)
        self._cached = sent
        spoken = min(tokens, self._most)
        seconds = (len(sent) - cached) / 1_000
        return Reply(
            text=" word" * spoken,
            prompt_tokens=len(sent),
            cached_prompt_tokens=cached if self._counts_cached else None,
            completion_tokens=spoken,
            ttft_seconds=seconds + OVERHEAD if self._streams else None,
            prefill_seconds=seconds if self._times else None,
            decode_seconds=spoken / 40 if self._streams else None,
            decode_tokens_per_second=50.0 if self._times else None,
        )


def found(model: Speaker, size: int = FILLED) -> ProbeResult:
    amounts = amounts_of(size)
    texts = SpeedTexts(1, model.count_tokens)
    bare = amounts._replace(fill=0)
    empty = measure(model, texts, Fill("", 0), bare)
    filled = measure(model, texts, texts.fill(amounts.fill), amounts)
    return result_of(empty, filled, seed=1, amounts=amounts)


def test_the_rates_are_those_of_the_engines_clock() -> None:
    result = found(Speaker())
    assert result.verdict is Verdict.OK
    medians = result.medians
    assert medians is not None
    assert medians.prefill_tokens_per_second == pytest.approx(1_000)
    assert medians.decode_tokens_per_second == pytest.approx(50)
    assert medians.speed.empty_prefill_tokens_per_second == pytest.approx(1_000)
    assert medians.speed.empty_decode_tokens_per_second == pytest.approx(50)
    assert medians.speed.prefill_clock == medians.speed.decode_clock == "engine"
    assert medians.speed.repetitions == REPETITIONS
    assert medians.decode_tokens == DECODE_TOKENS
    assert medians.prefill_tokens == pytest.approx(PREFILL_TOKENS, rel=0.05)
    assert medians.ttft_seconds == pytest.approx(PREFILL_TOKENS / 1_000 + OVERHEAD, rel=0.05)


def test_every_repetition_prefills_a_new_text_behind_the_same_fill() -> None:
    model = Speaker()
    texts = SpeedTexts(1, model.count_tokens)
    fill = texts.fill(amounts_of(FILLED).fill)
    depth = measure(model, texts, fill, amounts_of(FILLED))
    warm_up, *prompts = model.prompts
    assert warm_up == fill.text
    assert len(prompts) == REPETITIONS
    for one, other in pairwise(prompts):
        assert shared_prefix(words(one), words(other)) <= fill.tokens + 2
    for rate in depth.prefill:
        assert rate.tokens == pytest.approx(PREFILL_TOKENS, rel=0.05)


def test_an_engine_without_timings_is_timed_by_its_stream() -> None:
    medians = found(Speaker(times=False)).medians
    assert medians is not None
    assert medians.speed.prefill_clock == "ttft"
    assert medians.speed.decode_clock == "stream"
    assert medians.prefill_tokens_per_second == pytest.approx(1_000, rel=0.05)
    assert medians.decode_tokens_per_second == pytest.approx(40)


def test_cached_tokens_need_not_be_reported() -> None:
    result = found(Speaker(counts_cached=False))
    assert result.verdict is Verdict.OK
    assert result.medians is not None
    assert result.medians.prefill_tokens_per_second == pytest.approx(1_000, rel=0.02)


@pytest.mark.parametrize("counts_cached", [True, False])
def test_an_engine_that_keeps_no_prefix_is_not_measured_in_a_filled_context(
    counts_cached: bool,
) -> None:
    model = Speaker(keeps=False, counts_cached=counts_cached)
    result = found(model)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "does not keep the beginning of a prompt" in result.detail
    medians = result.medians
    assert medians is not None
    assert medians.prefill_tokens_per_second is medians.decode_tokens_per_second is None
    assert medians.speed.empty_prefill_tokens_per_second == pytest.approx(1_000, rel=0.02)
    long = [prompt for prompt in model.prompts if len(words(prompt)) > 2 * PREFILL_TOKENS]
    assert len(long) <= 3  # it is not filled again for every repetition


def test_an_engine_that_neither_times_nor_streams_is_inconclusive() -> None:
    result = found(Speaker(times=False, streams=False))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "nor streams its replies" in result.detail


@pytest.mark.parametrize("most", [20, 64, 127])
def test_a_model_that_ends_its_replies_is_asked_on(most: int) -> None:
    model = Speaker(most=most)
    medians = found(model).medians
    assert medians is not None
    assert medians.decode_tokens == DECODE_TOKENS
    assert medians.decode_tokens_per_second == pytest.approx(50)
    parts = [tokens for tokens in model.asked if tokens not in (DECODE_TOKENS, 16)]
    assert DECODE_TOKENS - most in parts


@pytest.mark.parametrize("most", [0, 1, 5])
def test_no_rate_comes_from_a_few_tokens(most: int) -> None:
    result = found(Speaker(most=most))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "the model ends its replies" in result.detail
    medians = result.medians
    assert medians is not None
    assert medians.decode_tokens_per_second is None
    assert medians.speed.empty_decode_tokens_per_second is None


def test_a_prompt_that_was_cut_is_no_measurement() -> None:
    result = found(Speaker(room=2_000, counts_cached=False))
    assert result.verdict is Verdict.PROMPT_TRUNCATED
    assert re.fullmatch(r"sent about 3,\d{3} prompt tokens, 2,000 arrived", result.detail)


@given(st.integers(208, 200_000))
def test_every_size_has_room_for_its_tokens(size: int) -> None:
    amounts = amounts_of(size)
    assert sum(amounts) < size
    assert amounts.prefill >= LEAST_RATE_TOKENS
    assert amounts.decode >= LEAST_RATE_TOKENS
    assert amounts.are_scaled == (size < 704)


@given(st.integers(1, 207))
def test_a_size_without_room_for_a_rate_is_inconclusive(size: int) -> None:
    with pytest.raises(Failure) as failed:
        amounts_of(size)
    assert failed.value.verdict is Verdict.INCONCLUSIVE


def test_a_small_context_is_measured_with_fewer_tokens_and_says_so() -> None:
    result = found(Speaker(), 512)
    assert result.verdict is Verdict.OK
    assert result.notes == ("small context: 359 tokens prefilled and 89 decoded",)
    assert result.medians is not None
    assert result.medians.speed.depth == 0


@given(st.lists(st.integers(64, 20_000), min_size=2, max_size=5), st.integers(0, 99))
def test_a_fill_begins_with_every_smaller_one(sizes: list[int], seed: int) -> None:
    texts = SpeedTexts(seed, lambda text: len(words(text)))
    fills = [texts.fill(size) for size in sorted(sizes)]
    for fill, size in zip(fills, sorted(sizes), strict=True):
        assert fill.tokens == len(words(fill.text))
        assert min(size - 32, 0.98 * size) - 1 <= fill.tokens <= size
    for smaller, larger in pairwise(fills):
        assert larger.text.startswith(smaller.text)


def test_a_vocabulary_without_tokens_is_an_error_of_the_engine() -> None:
    with pytest.raises(Failure) as failed:
        SpeedTexts(1, lambda text: 0)
    assert failed.value.verdict is Verdict.ENGINE_ERROR


def test_amounts_are_those_of_llama_bench() -> None:
    assert amounts_of(8_192) == Amounts(fill=7_488, prefill=512, decode=128)
