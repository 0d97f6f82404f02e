"""The result of `deep` at one size is used for others; how a model is asked."""

from __future__ import annotations

from typing import Literal

import pytest

from pytest_lmstrix.core.types import Case, Model
from pytest_lmstrix.core.verdicts import Verdict
from tests.checks.laboratory import SKIPPED
from tests.checks.sizes.scripted import Scripted, case, run_of
from tests.standin.lmstudio import (
    Crashes,
    Gibberish,
    GrantsAtMost,
    OutOfMemory,
    Reasons,
    Says,
    SeesLast,
)
from tests.standin.lmstudio.models.behaviours import AnyBehaviour, ChatOnly


class TestDeep:
    def test_deep_uses_one_load_for_all_sizes(self) -> None:
        engine = Scripted()
        found = run_of(engine).check("deep", [case(n) for n in (1_024, 2_048, 4_096)])
        assert [results and results[0].verdict for results in found.values()] == [Verdict.OK] * 3
        assert engine.taken() == [4_096]

    @pytest.mark.parametrize("verdict", [Verdict.TIMEOUT, Verdict.CRASHED, Verdict.OUT_OF_MEMORY])
    def test_a_size_that_does_not_load_does_not_fail_smaller_ones(self, verdict: Verdict) -> None:
        engine = Scripted(failing={4_096: verdict})
        found = run_of(engine).check("deep", [case(n) for n in (1_024, 2_048, 4_096)])
        assert [results and results[0].verdict for results in found.values()] == [
            *(Verdict.OK, Verdict.OK, verdict)
        ]
        assert engine.taken()[:3] == [4_096, 2_048, 4_096]

    def test_a_larger_size_that_crashed_once_is_retried(self) -> None:
        engine = Scripted(Crashes(at="load", times=1))
        found = run_of(engine).check("deep", [case(n) for n in (1_024, 4_096)])
        assert [results and results[0].verdict for results in found.values()] == [Verdict.OK] * 2

    @pytest.mark.parametrize(("at", "told_of"), [("load", 4_096), ("predict", 1_024)])
    def test_a_crash_in_a_shared_load_is_reported_for_one_size(
        self, at: Literal["load", "predict"], told_of: int
    ) -> None:
        engine = Scripted(Crashes(at=at, times=1))
        found = run_of(engine).check("deep", [case(n) for n in (1_024, 4_096)])
        assert engine.taken() == [4_096, 1_024, 4_096]
        for size, results in found.items():
            assert results is not SKIPPED
            (result,) = results
            assert (result.verdict, result.retried) == (Verdict.OK, size == told_of)
            said = "passed on another try, after\ncrashed: " if size == told_of else ""
            assert result.detail.startswith(said)
            assert bool(result.detail) is bool(said)

    @pytest.mark.parametrize("verdict", [Verdict.TIMEOUT, Verdict.CRASHED])
    def test_a_shared_load_counts_as_an_attempt_at_the_larger_size(self, verdict: Verdict) -> None:
        engine = Scripted(failing={4_090: verdict})
        found = run_of(engine).check("deep", [case(n) for n in (1_024, 4_090)])
        assert [(r[0].verdict, r[0].retried) for r in found.values() if r is not SKIPPED] == [
            *((Verdict.OK, False), (verdict, True))
        ]
        assert engine.taken() == [4_090, 1_024, 4_090]

    def test_out_of_memory_in_a_larger_context_is_not_retried(self) -> None:
        engine = Scripted(OutOfMemory(above=2_048, at="predict"))
        found = run_of(engine).check("deep", [case(n) for n in (1_024, 4_090)])
        assert [(r[0].verdict, r[0].retried) for r in found.values() if r is not SKIPPED] == [
            *((Verdict.OK, False), (Verdict.OUT_OF_MEMORY, False))
        ]

    @pytest.mark.parametrize(
        "how",
        [
            OutOfMemory(above=2_048, at="predict"),
            Gibberish(above=2_048),
            Crashes(at="predict", times=1),
        ],
        ids=["out of memory", "gibberish", "crashes once"],
    )
    def test_a_size_that_fails_in_a_larger_load_gets_its_own_load(self, how: AnyBehaviour) -> None:
        engine = Scripted(how)
        found = run_of(engine).check("deep", [case(n) for n in (1_024, 2_048)] + [case(4_090)])
        verdicts = [results and results[0].verdict for results in found.values()]
        assert verdicts[:2] == [Verdict.OK, Verdict.OK]
        # The larger load is not repeated for the next size, which would fail too.
        assert engine.taken() == [4_090, 1_024, 2_048, 4_090]

    def test_a_size_too_small_for_its_facts_does_not_affect_other_sizes(self) -> None:
        engine = Scripted()
        found = run_of(engine).check("deep", [case(n) for n in (64, 1_024, 2_048, 4_096)])
        verdicts = [results[0].verdict for results in found.values() if results is not SKIPPED]
        assert verdicts == [Verdict.INCONCLUSIVE, *[Verdict.OK] * 3]
        assert found[64] is not SKIPPED
        assert "64 tokens is too small" in found[64][0].detail
        assert engine.taken() == [4_096, 4_096]  # a failed load is unloaded

    def test_sizes_too_small_for_all_facts_are_filled_separately(self) -> None:
        engine = Scripted()
        found = run_of(engine).check("deep", [case(n) for n in (212, 214, 216)])
        assert [results and results[0].verdict for results in found.values()] == [Verdict.OK] * 3
        assert engine.taken() == [216]

    def test_garbage_above_a_recalled_size_is_recall_failed(self) -> None:
        found = run_of(Scripted(Gibberish(above=2_048))).check("deep", [case(2_048), case(4_000)])
        assert found[4_000] is not SKIPPED
        assert found[4_000][0].verdict is Verdict.RECALL_FAILED
        assert "recalls 0 of 5 facts from a few lines" in found[4_000][0].detail
        assert "2,048" in found[4_000][0].detail

    def test_garbage_at_every_size_is_inconclusive(self) -> None:
        found = run_of(Scripted(Gibberish(above=1))).check("deep", [case(1_024), case(2_048)])
        verdicts = [results and results[0].verdict for results in found.values()]
        assert verdicts == [Verdict.INCONCLUSIVE] * 2

    def test_a_context_not_granted_is_reported_with_both_numbers(self) -> None:
        engine = Scripted(GrantsAtMost(tokens=2_048))
        found = run_of(engine).check("deep", [case(1_024), case(4_000)])
        assert found[4_000] is not SKIPPED
        result = found[4_000][0]
        assert result.verdict is Verdict.CONTEXT_NOT_GRANTED
        assert result.granted_context_length == 2_048
        assert result.detail == "asked for 4,000 tokens of context, granted 2,048"
        assert engine.taken() == [4_000, 1_024, 4_000]  # no size is measured in such a load

    def test_deep_searches_smaller_sizes_and_skips_larger_ones(self) -> None:
        run = run_of(Scripted(SeesLast(tokens=4_500)))
        found = run.check("deep", [case(1_024), case(5_500), case(6_000)])
        assert found[5_500] is not SKIPPED
        result, *tried = found[5_500]
        assert result.verdict is Verdict.RECALL_FAILED
        assert result.detail.splitlines() == [
            "fails at 5,500; works at 4,455",
            "does not recall what is hidden at a depth of 5%",
        ]
        assert {r.check for r in tried} == {"deep"}
        assert all(r.recall for r in tried)
        assert found[6_000] is SKIPPED


@pytest.mark.parametrize(
    "behaviours",
    [
        pytest.param((ChatOnly(),), id="silent"),
        pytest.param((ChatOnly(text="<|channel|>analysis<|message|>We need"),), id="reasoning"),
        pytest.param((ChatOnly(), Reasons(tokens=150)), id="thinking in chats"),
    ],
)
def test_deep_asks_a_model_through_its_template_where_completions_give_nothing(
    behaviours: tuple[AnyBehaviour, ...],
) -> None:
    engine = Scripted(*behaviours)
    found = run_of(engine).check("deep", [case(1_024), case(4_096)])
    for results in found.values():
        assert results is not SKIPPED
        [result] = results
        assert (result.verdict, result.form) == (Verdict.OK, "chat")
        assert result.notes[0].startswith("chat: ")
        budget = min(1_024, result.context_length // 4)
        assert (result.prompt_tokens or 0) >= 0.97 * (result.context_length - budget)
    assert engine.taken() == [4_096]


def test_deep_finds_what_a_chat_forgets() -> None:
    found = run_of(Scripted(ChatOnly(), SeesLast(tokens=1_500))).check("deep", [case(4_000)])
    results = found[4_000]
    assert results is not SKIPPED
    assert (results[0].verdict, results[0].form) == (Verdict.RECALL_FAILED, "chat")
    assert results[0].notes == ()


def test_deep_judges_nothing_where_neither_form_gives_an_answer() -> None:
    found = run_of(Scripted(Says(text=""))).check("deep", [case(4_000)])
    results = found[4_000]
    assert results is not SKIPPED
    assert (results[0].verdict, results[0].form) == (Verdict.INCONCLUSIVE, "completion")


@pytest.mark.parametrize(
    "behaviours",
    [
        pytest.param((), id="healthy"),
        pytest.param((Reasons(tokens=150),), id="thinking"),
        pytest.param((ChatOnly(text=" 96"),), id="wrong completions"),
    ],
)
def test_deep_asks_a_model_that_is_to_chat_through_its_template_alone(
    behaviours: tuple[AnyBehaviour, ...],
) -> None:
    engine = Scripted(*behaviours)
    model = Model(id="tiny", engine="fake", prompts="chat")
    cases = [Case(model=model, context_length=size) for size in (1_024, 4_096)]
    for results in run_of(engine).check("deep", cases).values():
        assert results is not SKIPPED
        [result] = results
        assert (result.verdict, result.form, result.notes) == (Verdict.OK, "chat", ())
        budget = min(1_024, result.context_length // 4)
        assert (result.prompt_tokens or 0) >= 0.97 * (result.context_length - budget)
    assert engine.taken() == [4_096]


def test_deep_judges_nothing_where_a_model_that_is_to_chat_recalls_only_in_completions() -> None:
    model = Model(id="tiny", engine="fake", prompts="chat")
    found = run_of(Scripted(Reasons(tokens=5_000))).check(
        "deep", [Case(model=model, context_length=4_000)]
    )[4_000]
    assert found is not SKIPPED
    assert (found[0].verdict, found[0].form) == (Verdict.INCONCLUSIVE, "chat")


def test_deep_asks_by_completions_where_they_work() -> None:
    found = run_of(Scripted(Reasons(tokens=5_000))).check("deep", [case(4_000)])
    results = found[4_000]
    assert results is not SKIPPED
    assert (results[0].verdict, results[0].form) == (Verdict.OK, "completion")
    assert results[0].notes == ()
