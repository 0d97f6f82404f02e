"""Below a failure: which sizes are tried, skipped, and recorded."""

from __future__ import annotations

import pytest

from pytest_lmstrix.checks.attempt import ProbeResult
from pytest_lmstrix.core.types import Case, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.plan.plan import KnownRange
from pytest_lmstrix.plan.size_search import steps_down
from pytest_lmstrix.probes.questions import PROBES
from tests.checks.laboratory import SKIPPED
from tests.checks.sizes.scripted import DECLARED, Scripted, case, full, run_of
from tests.standin.fake_engine import FakeInstance
from tests.standin.lmstudio import (
    CrashesAbove,
    Gibberish,
    GrantsAtMost,
    OutOfMemory,
)


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
