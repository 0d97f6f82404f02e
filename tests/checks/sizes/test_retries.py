"""Retries, granted contexts, and what is noted of one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_lmstrix.checks.fills import deep
from pytest_lmstrix.core.types import Case, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.probes.haystack import CountTokens, Haystack, fill
from pytest_lmstrix.probes.recall import Control, Recall
from tests.checks.laboratory import SKIPPED
from tests.checks.sizes.scripted import Scripted, case, full, run_of
from tests.standin.fake_engine import FakeInstance
from tests.standin.lmstudio import (
    Crashes,
    Gibberish,
    GrantsMore,
    Reasons,
)


def test_a_crash_is_retried_once_and_reported() -> None:
    engine = Scripted(Crashes(at="load", times=1))
    (result,) = full(run_of(engine), 8_192)
    assert (result.verdict, result.retried) == (Verdict.OK, True)
    engine = Scripted(Crashes(at="load", times=2))
    result = full(run_of(engine), 8_192)[0]
    assert (result.verdict, result.retried) == (Verdict.CRASHED, True)


@pytest.mark.parametrize(
    ("losses", "verdict"), [(1, Verdict.OK), (2, Verdict.OK), (3, Verdict.UNREACHABLE)]
)
def test_a_lost_connection_is_retried_twice(losses: int, verdict: Verdict) -> None:
    class Losing(Scripted):
        def load(self, model: Model, context_length: int, progress: Progress) -> FakeInstance:
            lost = len(self.loads) < losses
            self.failing = {context_length: Verdict.UNREACHABLE} if lost else {}
            return super().load(model, context_length, progress)

    (result,) = full(run_of(Losing()), 8_192)
    assert (result.verdict, result.retried) == (verdict, True)


@pytest.mark.parametrize(
    ("asked", "granted", "noted"),
    [
        (30_000, 30_208, False),
        (30_000, 30_209, True),
        (30_300, 30_464, False),
        (30_300, 30_465, True),
    ],
)
def test_more_granted_is_noted_beyond_the_next_256(asked: int, granted: int, noted: bool) -> None:
    engine = Scripted(GrantsMore(extra=granted - asked))
    result = full(run_of(engine), asked, asked)[0]
    assert (result.verdict, result.granted_context_length) == (Verdict.OK, granted)
    note = f"larger context: granted {granted:,} tokens, asked for {asked:,}"
    assert result.notes == ((note,) if noted else ())


def test_a_failed_model_is_unloaded() -> None:
    engine = Scripted(Gibberish(above=10_000))
    full(run_of(engine), 60_000, 60_000)
    assert engine.loaded == 0


def test_a_size_that_fails_with_shared_facts_is_retried_with_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Confusing one of many facts with another is not a failure to see them."""
    filled: list[list[int]] = []

    def ask(instance: Any, haystack: Haystack, control: Control) -> Recall:
        distracted = len(filled[-1]) > 1 and haystack.size == 2_048
        verdict = Verdict.RECALL_FAILED if distracted else Verdict.OK
        return Recall(verdict=verdict, recalled={})

    def noted_fill(
        seed: int, sizes: list[int], count_tokens: CountTokens, *reserved: Callable[[int], int]
    ) -> tuple[Haystack, ...]:
        filled.append(sizes)
        return fill(seed, sizes, count_tokens, *reserved)

    monkeypatch.setattr(deep, "ask_filled", ask)
    monkeypatch.setattr(deep, "fill", noted_fill)
    engine = Scripted()
    found = run_of(engine).check("deep", [case(1_024), case(2_048)])
    assert [results and results[0].verdict for results in found.values()] == [Verdict.OK] * 2
    assert filled == [[1_024, 2_048], [2_048]]
    assert engine.taken() == [2_048]


@pytest.mark.parametrize(
    ("budget", "verdict"), [(None, Verdict.NO_ANSWER_IN_BUDGET), (3_000, Verdict.OK)]
)
def test_a_model_that_thinks_long_may_be_given_more_tokens(
    budget: int | None, verdict: Verdict
) -> None:
    model = Model(id="tiny", engine="fake", prompts="chat", answer_tokens=budget)
    thinker = run_of(Scripted(Reasons(tokens=2_500)))
    found = thinker.check("full", [Case(model=model, context_length=8_192)])[8_192]
    assert found is not SKIPPED
    assert found[0].verdict is verdict
