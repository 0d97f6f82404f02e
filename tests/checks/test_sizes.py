"""The rules by which the result at one size is used for others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest

from pytest_lmstrix.checks.attempt import ProbeResult
from pytest_lmstrix.checks.fills import deep
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, Model, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.plan.plan import KnownRange
from pytest_lmstrix.plan.size_search import steps_down
from pytest_lmstrix.probes.haystack import CountTokens, Haystack, fill
from pytest_lmstrix.probes.questions import PROBES
from pytest_lmstrix.probes.recall import Control, Recall
from tests.checks.laboratory import SKIPPED, Run, loader_for
from tests.standin.fake_engine import FakeEngine, FakeInstance
from tests.standin.lmstudio import (
    Corrupted,
    Crashes,
    CrashesAbove,
    Gibberish,
    GrantsAtMost,
    GrantsMore,
    OutOfMemory,
    Reasons,
    Says,
    SeesLast,
    StandInModel,
)
from tests.standin.lmstudio.models.behaviours import AnyBehaviour, ChatOnly

DECLARED = 131_072


class Scripted(FakeEngine):
    """An engine with the model `tiny`; loads of some sizes fail with a verdict."""

    def __init__(self, *behaviours: AnyBehaviour, failing: Mapping[int, Verdict] = {}) -> None:
        super().__init__((StandInModel(key="tiny", behaviours=behaviours),))
        self.failing = dict(failing)
        self.loads: list[int] = []

    def load(self, model: Model, context_length: int, progress: Progress) -> FakeInstance:
        self.loads.append(context_length)
        if context_length in self.failing:
            verdict = self.failing[context_length]
            raise Failure(f"scripted {verdict}", verdict=verdict, phase="load")
        return super().load(model, context_length, progress)

    def taken(self) -> list[int]:
        """The sizes loaded since the last call."""
        loads, self.loads = self.loads, []
        return loads


def case(size: int, declared: int | None = DECLARED) -> Case:
    return Case(model=Model(id="tiny", engine="fake", context_limit=declared), context_length=size)


def run_of(engine: FakeEngine, **more: Any) -> Run:
    return Run(loader_for(engine), **more)


def full(run: Run, size: int, declared: int | None = DECLARED) -> list[Result]:
    results = run.check("full", [case(size, declared)])[size]
    assert results is not SKIPPED
    return results


class TestGoingDown:
    @pytest.mark.parametrize(
        ("size", "declared", "goes"),
        [
            (4_095, DECLARED, False),
            (4_096, DECLARED, True),
            (60_000, 60_001, True),
            (60_000, 60_000, False),
            (60_000, 30_000, False),
            (60_000, None, True),
        ],
    )
    def test_the_search_range_is_4096_to_below_the_declared_maximum(
        self, size: int, declared: int | None, goes: bool
    ) -> None:
        results = full(run_of(Scripted(OutOfMemory(above=500))), size, declared)
        assert results[0].verdict is Verdict.OUT_OF_MEMORY
        assert ("\nfails at any size" in results[0].detail) is goes

    @pytest.mark.parametrize(
        ("size", "said"),
        [
            (60_000, "fails at 60,000; works at no size tried down to 4,307"),
            (4_552, "fails at 4,552; works at no size tried down to 4,096"),
            (4_551, "fails at 4,551; no smaller size is tried"),
            (4_096, "fails at 4,096; no smaller size is tried"),
        ],
    )
    def test_the_detail_claims_only_tried_sizes(self, size: int, said: str) -> None:
        engine = Scripted(OutOfMemory(above=500, at="predict"))
        result, *tried = full(run_of(engine), size)
        assert result.detail.splitlines()[0] == said
        assert bool(tried) is ("no smaller size" not in said)

    @pytest.mark.parametrize("size", [60_000, 4_552])
    def test_a_load_that_fails_at_the_floor_with_the_same_words_fails_at_any_size(
        self, size: int
    ) -> None:
        run = run_of(Scripted(OutOfMemory(above=500)))
        result, _ = full(run, size)
        words, said = result.detail.splitlines()
        assert words.startswith("Failed to load model: error loading model: unable to allocate")
        assert said == "fails at any size"
        assert result.notes == ("any size",)
        assert run.size_policy.too_large("full", case(100_000)) == f"fails at any size: {words}"

    def test_a_failing_granted_context_counts_as_tried(self) -> None:
        engine = Scripted(GrantsAtMost(tokens=4_200), Gibberish(above=500))
        result = full(run_of(engine), 4_500)[0]
        assert "fails at 4,500; works at no size tried down to 4,200" in result.detail

    @pytest.mark.parametrize("verdict", list(Verdict))
    def test_only_verdicts_that_a_smaller_size_may_change_are_searched(
        self, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(PROBES, "full", lambda loaded: ProbeResult(verdict=verdict))
        results = run_of(Scripted()).size_policy.run("full", case(60_000))
        hopeless = {
            *(Verdict.OK, Verdict.TIMEOUT, Verdict.NO_ANSWER_IN_BUDGET, Verdict.INCONCLUSIVE),
            *(Verdict.MODEL_NOT_FOUND, Verdict.CORRUPTED, Verdict.UNSUPPORTED),
            *(Verdict.UNREACHABLE, Verdict.HOST_TROUBLE, Verdict.TEMPLATE_ERROR),
        }
        assert (len(results) == 1) is (verdict in hopeless)

    def test_a_model_that_fails_at_the_floor_needs_one_more_load(self) -> None:
        engine = Scripted(OutOfMemory(above=500))
        full(run_of(engine), 60_000)
        assert engine.taken() == [60_000, 4_307]

    def test_larger_sizes_are_skipped_with_the_reason_but_not_smaller_ones(self) -> None:
        engine = Scripted(OutOfMemory(above=50_000))
        run = run_of(engine)
        found = run.check("full", [case(60_000), case(60_001), case(80_000)])
        assert found[60_001] is found[80_000] is SKIPPED
        reason = "fails at 60,000; works at 48,600"
        assert run.size_policy.too_large("full", case(80_000)) == reason
        assert run.size_policy.too_large("deep", case(80_000)) == reason
        assert run.size_policy.too_large("full", case(60_000)) is None

    def test_no_size_is_skipped_before_a_failure(self) -> None:
        assert run_of(Scripted()).size_policy.too_large("full", case(10_000_001)) is None

    def test_other_models_are_not_skipped(self) -> None:
        run = run_of(Scripted(OutOfMemory(above=50_000)))
        full(run, 60_000)
        other = Case(model=Model(id="other", engine="fake"), context_length=80_000)
        assert run.size_policy.too_large("full", other) is None

    def test_limit_is_not_skipped_after_a_failure(self) -> None:
        run = run_of(Scripted(OutOfMemory(above=50_000)))
        full(run, 60_000)
        assert run.size_policy.too_large("limit", case(DECLARED)) is None

    def test_the_search_does_not_go_below_a_known_good_size(self) -> None:
        engine = Scripted(OutOfMemory(above=50_000))
        run = run_of(engine, known={"full[tiny]": KnownRange(good=40_000)})
        assert "works at 48,600" in full(run, 60_000)[0].detail
        assert all(size > 40_000 for size in engine.taken())

    def test_the_search_does_not_go_below_a_size_passed_in_this_run(self) -> None:
        engine = Scripted(OutOfMemory(above=50_000))
        run = run_of(engine)
        run.check("full", [case(30_000), case(40_000)])
        engine.taken()
        full(run, 60_000)
        assert all(size > 40_000 for size in engine.taken())

    def test_a_larger_known_good_size_is_ignored(self) -> None:
        run = run_of(
            Scripted(OutOfMemory(above=50_000)), known={"full[tiny]": KnownRange(good=80_000)}
        )
        assert "works at 48,600" in full(run, 60_000)[0].detail

    def test_a_larger_size_passed_by_full_does_not_count_for_fast(self) -> None:
        engine = Scripted(OutOfMemory(above=50_000))
        run = run_of(engine, known={"full[tiny]": KnownRange(good=80_000)})
        fast = run.check("fast", [case(60_000)])[60_000]
        assert fast is not SKIPPED
        assert "works at 48,600" in fast[0].detail

    def test_two_checks_of_one_size_share_a_search(self) -> None:
        engine = Scripted(OutOfMemory(above=50_000))
        run = run_of(engine)
        fast = run.check("fast", [case(60_000)])[60_000]
        assert fast is not SKIPPED
        assert "works at 48,600" in fast[0].detail
        engine.taken()
        assert "works at 48,600" in full(run, 60_000)[0].detail
        assert engine.taken() == [60_000]

    def test_a_passed_hello_does_not_count_for_full(self) -> None:
        engine = Scripted(Gibberish(above=10_000))
        run = run_of(engine)
        run.check("fast", [case(20_000)])
        assert "works at 9,414" in full(run, 30_000)[0].detail

    def test_searched_sizes_have_origin_search(self) -> None:
        results = full(run_of(Scripted(OutOfMemory(above=50_000))), 60_000)
        assert {r.check for r in results} == {"full"}
        assert [r.origin for r in results] == ["case", *["search"] * (len(results) - 1)]

    def test_a_failing_granted_context_excludes_larger_sizes(self) -> None:
        engine = Scripted(GrantsAtMost(tokens=15_000), Gibberish(above=14_500))
        assert "works at 14,348" in full(run_of(engine), 30_000)[0].detail
        loads = engine.taken()
        assert loads[:2] == [30_000, 15_000]
        assert all(size < 15_000 for size in loads[2:])

    def test_a_crashing_model_is_searched_as_exactly_with_no_more_loads(self) -> None:
        for capacity in steps_down(120_000):
            engine = Scripted(CrashesAbove(above=capacity))
            result = full(run_of(engine), 120_000)[0]
            assert f"works at {capacity:,}" in result.detail
            assert result.retried
            assert engine.taken()[:2] == [120_000, 120_000]
            assert engine.attempts["load tiny"] - 2 <= 6

    @pytest.mark.parametrize(
        ("steady", "loads"),
        [
            (None, [4_307, 4_307, 16_945, 16_945, 31_886, 31_886]),
            (4_307, [4_307, 16_945, 16_945, 31_886, 31_886, 43_740]),
        ],
    )
    def test_retries_count_towards_the_six_loads(
        self, steady: int | None, loads: list[int]
    ) -> None:
        class Unsteady(Scripted):
            """Every size except `steady` crashes on its first attempt."""

            def load(self, model: Model, context_length: int, progress: Progress) -> FakeInstance:
                crashes = context_length not in (steady, *self.loads)
                self.failing = {context_length: Verdict.CRASHED} if crashes else {}
                return super().load(model, context_length, progress)

        engine = Unsteady(OutOfMemory(above=50_000))
        result = full(run_of(engine), 60_000)[0]
        assert engine.taken()[2:] == loads
        assert "fails at 60,000; works at 31,886" in result.detail

    def test_a_search_takes_at_most_six_loads(self) -> None:
        for capacity in steps_down(999_999):
            engine = Scripted(OutOfMemory(above=capacity))
            result = full(run_of(engine), 999_999, 1_000_000)[0]
            assert "works at" in result.detail
            assert len(engine.taken()) - 1 <= 6

    @pytest.mark.parametrize("met", [Verdict.TIMEOUT, Verdict.UNREACHABLE])
    def test_an_aborted_search_is_described(self, met: Verdict) -> None:
        engine = Scripted(OutOfMemory(above=50_000), failing={4_307: met})
        run = run_of(engine)
        (result, tried) = full(run, 60_000)
        assert result.verdict is Verdict.OUT_OF_MEMORY
        assert result.detail.startswith(
            f"fails at 60,000; the search below it ended with {met} at 4,307\n"
        )
        assert tried.verdict is met
        assert "works at" not in result.detail

    def test_a_model_that_disappears_during_the_search_is_not_skipped_as_too_large(self) -> None:
        engine = Scripted(OutOfMemory(above=50_000), failing={4_307: Verdict.CORRUPTED})
        run = run_of(engine)
        found = run.check("full", [case(60_000), case(80_000)])
        assert found[80_000] is not SKIPPED
        assert found[80_000][0].verdict is Verdict.CORRUPTED
        assert engine.taken() == [60_000, 4_307]


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


class TestLimit:
    def limit(self, engine: Scripted, known: KnownRange | None = None) -> list[Result]:
        ranges = {"full[tiny]": known} if known else {}
        return run_of(engine, known=ranges).size_policy.run("limit", case(DECLARED))

    def test_limit_records_every_probe_and_none_above_the_declared_maximum(self) -> None:
        engine = Scripted(OutOfMemory(above=50_000))
        results = self.limit(engine)
        assert sorted(r.context_length for r in results) == sorted(engine.taken())
        assert max(r.context_length for r in results) == DECLARED
        assert {r.check for r in results} == {"limit"}
        assert [r.origin for r in results] == ["case", *["search"] * (len(results) - 1)]
        assert results[0].verdict is Verdict.OK
        assert 49_500 <= results[0].context_length <= 50_000

    def test_limit_takes_one_load_when_the_declared_maximum_works(self) -> None:
        engine = Scripted()
        (result,) = self.limit(engine)
        assert result.detail == "works up to 131,072 of 131,072 tokens"
        assert engine.taken() == [DECLARED]

    def test_known_sizes_bound_the_limit_search_and_are_confirmed(self) -> None:
        engine = Scripted(OutOfMemory(above=50_000))
        results = self.limit(engine, KnownRange(good=49_900, bad=50_100))
        assert engine.taken() == [49_900]
        assert results[0].context_length == 49_900

    def test_a_known_good_size_that_now_fails_is_not_the_limit(self) -> None:
        engine = Scripted(OutOfMemory(above=10_000))
        results = self.limit(engine, KnownRange(good=49_900, bad=50_100))
        assert 9_744 <= results[0].context_length <= 10_000

    def test_sizes_tried_in_this_run_bound_the_limit_search(self) -> None:
        engine = Scripted(OutOfMemory(above=50_000))
        run = run_of(engine)
        run.check("full", [case(40_000), case(60_000)])
        engine.taken()
        results = run.size_policy.run("limit", case(DECLARED))
        assert all(48_600 <= size < 54_000 for size in engine.taken())
        assert 49_500 <= results[0].context_length <= 50_000

    def test_newer_results_override_known_ones(self) -> None:
        engine = Scripted(OutOfMemory(above=10_000))
        run = run_of(engine, known={"full[tiny]": KnownRange(good=80_000, bad=90_000)})
        run.check("full", [case(60_000)])
        engine.taken()
        assert 9_700 <= run.size_policy.run("limit", case(DECLARED))[0].context_length <= 10_000
        assert all(size < 60_000 for size in engine.taken())
        engine = Scripted()
        run = run_of(engine, known={"full[tiny]": KnownRange(bad=20_000)})
        run.check("full", [case(60_000)])
        assert run.size_policy.run("limit", case(DECLARED))[0].context_length == DECLARED

    @pytest.mark.parametrize("verdict", [Verdict.TIMEOUT, Verdict.UNREACHABLE, Verdict.CORRUPTED])
    def test_a_verdict_not_about_the_size_ends_the_limit_search(self, verdict: Verdict) -> None:
        engine = Scripted(OutOfMemory(above=50_000), failing={4_096: verdict})
        result, *others = self.limit(engine)
        assert (result.verdict, result.context_length) == (verdict, 4_096)
        assert [r.context_length for r in others] == [DECLARED]

    def test_limit_fails_if_no_size_works(self) -> None:
        result, *_ = self.limit(Scripted(OutOfMemory(above=10)))
        assert result.verdict is Verdict.OUT_OF_MEMORY
        assert result.detail.endswith("\nfails at any size")

    @pytest.mark.parametrize("small", [8, 200, 256])
    def test_a_failed_small_size_does_not_end_the_limit_search(self, small: int) -> None:
        engine = Scripted(failing={small: Verdict.CONTEXT_TOO_LARGE})
        assert self.limit(engine, KnownRange(bad=small))[0].context_length == DECLARED
        run = run_of(engine)
        full(run, small)
        assert run.size_policy.run("limit", case(DECLARED))[0].verdict is Verdict.OK

    def test_limit_fails_if_a_small_size_and_all_others_fail(self) -> None:
        engine = Scripted(OutOfMemory(above=10))
        run = run_of(engine)
        full(run, 256)
        result, *_ = run.size_policy.run("limit", case(DECLARED))
        assert result.verdict is Verdict.OUT_OF_MEMORY
        assert result.detail.endswith("\nfails at any size")

    def test_a_corrupted_model_is_loaded_once(self) -> None:
        engine = Scripted(Corrupted(at="load"))
        (result,) = self.limit(engine)
        assert result.verdict is Verdict.CORRUPTED
        assert engine.taken() == [DECLARED]


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
