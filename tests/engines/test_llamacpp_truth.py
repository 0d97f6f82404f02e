"""The probes with a real model: sizes that it can handle pass, hidden text fails."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from msgspec.structs import replace

pytest.importorskip("xllamacpp")

from pytest_lmstrix.core.types import LoadSettings, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Instance
from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from pytest_lmstrix.probes.haystack import Haystack, fill
from pytest_lmstrix.probes.questions import FULL, HELLO, Question, ask, grade
from pytest_lmstrix.probes.recall import Control, Recall, ask_control, ask_filled
from tests.standin import weights

SIZES = (1024, 2048)


class Silent:
    """A `Progress` that ignores every report."""

    def __call__(self, fraction: float, /) -> None:
        """Ignore it."""

    def prefill(self, done: int, total: int) -> None:
        """Ignore it."""


@pytest.fixture(scope="module")
def instance() -> Iterator[LlamaCppInstance]:
    """SmolLM2-135M with room for the largest of `SIZES`."""
    model = Model(
        id="smollm2",
        engine="llamacpp",
        source=str(weights.smollm2()),
        load=LoadSettings(threads=1),  # several threads are very slow on a busy machine
    )
    instance = LlamaCppEngine().load(model, max(SIZES), Silent())
    yield instance
    instance.unload()


@pytest.fixture(scope="module")
def filled(instance: Instance) -> list[tuple[Haystack, Recall]]:
    """Measure all sizes in one load, with a growing prompt."""
    haystacks = fill(1, SIZES, instance.count_tokens)
    controls = [ask_control(instance, haystack) for haystack in haystacks]
    return [
        (haystack, ask_filled(instance, haystack, control))
        for haystack, control in zip(haystacks, controls, strict=True)
    ]


@pytest.mark.parametrize("question", [HELLO, *FULL], ids=lambda question: question.name)
def test_a_small_model_answers(instance: Instance, question: Question) -> None:
    assert grade(question, ask(instance, "completion", question)) is Verdict.OK


def test_the_likeliest_token_is_the_one_that_is_written(instance: LlamaCppInstance) -> None:
    reply = instance.rank("The pass key is lemon. Remember it: the pass key is")
    likeliest = max(reply.likeliest, key=reply.likeliest.__getitem__)
    assert (likeliest, reply.text) == (" lemon", " lemon")
    assert len(reply.likeliest) > 10
    assert all(value <= 0 for value in reply.likeliest.values())
    assert instance.complete("1 + 1 =", max_tokens=2).likeliest == {}


@pytest.mark.long
def test_every_size_is_filled_and_recalled(filled: list[tuple[Haystack, Recall]]) -> None:
    for haystack, recall in filled:
        assert recall.verdict is Verdict.OK, recall.detail
        room = haystack.size - 12
        prompts = [reply.prompt_tokens or 0 for reply in recall.replies]
        assert 0.98 * room <= min(prompts) <= max(prompts) <= room


@pytest.mark.long
def test_the_filler_is_processed_once(filled: list[tuple[Haystack, Recall]]) -> None:
    fresh = [
        (reply.prompt_tokens or 0) - (reply.cached_prompt_tokens or 0)
        for _, recall in filled
        for reply in recall.replies
    ]
    assert sum(fresh) <= 1.1 * max(SIZES)
    for (smaller, _), (larger, _) in pairwise(filled):
        assert larger.prose.startswith(smaller.prose)


@pytest.mark.long
def test_a_model_that_ignores_the_middle_fails(
    instance: Instance, filled: list[tuple[Haystack, Recall]]
) -> None:
    haystack, _ = filled[0]
    prose = haystack.prose
    middle = slice(len(prose) // 3, 2 * len(prose) // 3)
    blind = replace(haystack, prose=prose.replace(prose[middle], ""), prompt_tokens=(0,) * 5)
    recall = ask_filled(instance, blind, Control(score=5))
    assert recall.verdict is Verdict.RECALL_FAILED
    assert recall.recalled["0.5"] is False
    assert "50%" in recall.detail
