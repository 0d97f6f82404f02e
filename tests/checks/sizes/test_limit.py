"""The search of the largest size that works."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.plan.plan import KnownRange
from tests.checks.sizes.scripted import DECLARED, Scripted, case, full, run_of
from tests.standin.lmstudio import (
    Corrupted,
    OutOfMemory,
)


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
