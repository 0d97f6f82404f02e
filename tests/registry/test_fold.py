from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import TRAITS, Verdict
from pytest_lmstrix.registry.fold import Fold, ModelStatus, VerifyingCheck
from tests.registry.results import a_result

BAD = [verdict for verdict in Verdict if verdict.evidence == "bad"]
OPEN = [verdict for verdict in Verdict if verdict.evidence == "open"]


def folded(*results: Result) -> Fold:
    fold = Fold()
    for result in results:
        fold.add(result)
    return fold


def status(*results: Result, **which: str) -> ModelStatus:
    found = folded(*results).status("m", **which)  # type: ignore[arg-type]
    assert found is not None
    return found


def verified(*results: Result, **which: str) -> tuple[int | None, str | None]:
    found = status(*results, **which)
    return found.verified_context, found.verified_check


def test_every_verdict_has_a_status() -> None:
    assert set(TRAITS) == set(Verdict)


def test_a_model_without_lines_has_no_status() -> None:
    assert folded(a_result()).status("other") is None


def test_the_largest_passing_size_is_verified() -> None:
    assert verified(a_result(8192), a_result(16384), a_result(4096)) == (16384, "full")


@pytest.mark.parametrize("verdict", BAD + OPEN)
def test_nothing_above_a_failing_size_is_verified(verdict: Verdict) -> None:
    lines = a_result(8192), a_result(16384, verdict), a_result(32768)
    assert verified(*lines) == (8192, "full")
    assert status(*lines).largest_good == 32768


@pytest.mark.parametrize("verdict", sorted(set(Verdict) - {"ok", "unreachable", "host_trouble"}))
def test_only_the_newest_verdict_of_a_size_counts(verdict: Verdict) -> None:
    assert verified(a_result(), a_result(verdict=verdict)) == (None, None)
    assert verified(a_result(verdict=verdict), a_result()) == (8192, "full")


@pytest.mark.parametrize(
    "verdict", ["model_not_found", "corrupted", "unsupported", "inconclusive", "unreachable"]
)
def test_verdicts_not_about_the_size_do_not_block_larger_sizes(verdict: str) -> None:
    assert verified(a_result(4096, verdict), a_result(8192)) == (8192, "full")
    assert status(a_result(4096, verdict)).smallest_bad is None


def test_the_last_line_is_the_newest_regardless_of_its_time() -> None:
    wrong_clock = datetime(2099, 1, 1, tzinfo=UTC)
    assert verified(a_result(verdict="timeout", at=wrong_clock), a_result()) == (8192, "full")


def test_an_unreachable_server_changes_nothing() -> None:
    known = status(a_result(), a_result(16384, "out_of_memory"))
    assert status(
        a_result(), a_result(16384, "out_of_memory"), a_result(verdict="unreachable")
    ) == (known)
    assert status(a_result(verdict="unreachable")).status == "untested"


@pytest.mark.parametrize("verdict", ["engine_error", "crashed", "timeout"])
def test_trouble_of_the_host_withdraws_what_its_run_recorded(verdict: str) -> None:
    before = [a_result(run="r1"), a_result(16384, "timeout", run="r1")]
    blamed = [a_result(size, verdict, run="r2") for size in (8192, 16384, 4096)]
    again = [a_result(8192, verdict, run="r2")]
    trouble = [a_result(size, "host_trouble", run="r2") for size in (8192, 16384, 4096)]
    assert folded(*before, *blamed, *again, *trouble).known("m") == folded(*before).known("m")
    assert status(*blamed, *trouble).status == "untested"


def test_trouble_of_the_host_withdraws_nothing_of_other_runs_and_sizes() -> None:
    known = [a_result(run="r1"), a_result(16384, "crashed", run="r1")]
    trouble = [a_result(size, "host_trouble", run="r2") for size in (8192, 16384, 512)]
    assert status(*known, *trouble) == status(*known)


@pytest.mark.parametrize("verdict", BAD)
def test_smallest_bad_is_the_smallest_failing_size(verdict: Verdict) -> None:
    found = status(a_result(32768, "crashed"), a_result(16384, verdict), a_result(8192))
    assert (found.smallest_bad, found.smallest_bad_verdict) == (16384, verdict)


@pytest.mark.parametrize("verdict", OPEN)
def test_sizes_that_may_pass_with_more_time_are_not_bad(verdict: Verdict) -> None:
    assert status(a_result(16384, verdict)).smallest_bad is None
    assert status(a_result(16384, verdict)).status == "failed"


def test_fast_verifies_nothing() -> None:
    found = status(a_result(check="fast"))
    assert (found.verified_context, found.largest_good) == (None, None)
    assert found.status == "completed"


def test_a_failed_fast_blocks_until_full_or_deep_passes_at_its_size() -> None:
    failed = a_result(4096, "empty_reply", check="fast")
    assert verified(a_result(4096), failed, a_result(8192)) == (4096, "full")
    assert verified(failed, a_result(4096), a_result(8192)) == (8192, "full")
    assert verified(failed, a_result(4096, check="deep"), a_result(8192)) == (8192, "full")


def test_limit_lines_count_as_full() -> None:
    lines = a_result(8192, check="limit"), a_result(16384, "out_of_memory", check="limit")
    assert verified(*lines) == (8192, "full")
    assert status(*lines).smallest_bad == 16384
    assert verified(*lines, a_result(8192, "timeout")) == (None, None)


def test_a_later_larger_pass_supersedes_failed_search_lines() -> None:
    failed = (
        a_result(30_000, "prompt_truncated"),
        a_result(4_502, "prompt_truncated", origin="search"),
    )
    assert verified(*failed) == (None, None)
    assert status(*failed).smallest_bad == 4_502
    repaired = a_result(30_000), a_result(32_767)
    assert verified(*failed, *repaired) == (32_767, "full")
    assert status(*failed, *repaired).smallest_bad is None
    assert verified(failed[1], a_result(32_767, check="deep")) == (32_767, "deep")


@pytest.mark.parametrize(
    "later",
    [a_result(4_096), a_result(30_000, check="fast"), a_result(30_000, check="test_mine")],
    ids=["smaller", "fast", "users-own"],
)
def test_a_weaker_or_earlier_pass_does_not_supersede_failed_search_lines(later: Result) -> None:
    searched = a_result(4_502, "prompt_truncated", origin="search")
    assert status(searched, later).smallest_bad == 4_502
    assert status(a_result(30_000), searched).smallest_bad == 4_502  # the pass was earlier


def test_a_later_larger_pass_does_not_supersede_cases_or_searched_passes() -> None:
    case = a_result(4_502, "prompt_truncated")
    assert verified(case, a_result(30_000)) == (None, None)
    assert status(case, a_result(30_000)).smallest_bad == 4_502
    searched = a_result(4_502, origin="search", load_seconds=1.0)
    assert verified(searched, a_result(30_000), a_result(8_192, "crashed")) == (4_502, "full")


def test_deep_takes_precedence_and_each_check_can_be_queried() -> None:
    lines = a_result(8192), a_result(8192, check="deep"), a_result(16384)
    assert verified(*lines[:2]) == (8192, "deep")
    assert verified(*lines) == (16384, "full")
    assert verified(*lines, check="deep") == (8192, "deep")
    assert verified(*lines, check="full") == (16384, "full")


def test_a_failed_deep_blocks_larger_sizes_that_pass_full() -> None:
    assert verified(
        a_result(8192), a_result(8192, "recall_failed", check="deep"), a_result(16384)
    ) == (8192, "full")


def test_user_checks_do_not_affect_the_verified_size() -> None:
    lines = a_result(8192), a_result(4096, "engine_error", check="test_json")
    assert verified(*lines) == (8192, "full")
    assert status(*lines).status == "completed"
    assert status(a_result(32768, check="test_json")).verified_context is None
    assert status(a_result(32768, check="test_json")).status == "completed"


class TestWeights:
    def test_the_newest_weights_are_the_default(self) -> None:
        lines = a_result(32768), a_result(8192, fingerprint="size:2")
        assert verified(*lines) == (8192, "full")
        assert verified(*lines, fingerprint="size:1") == (32768, "full")
        assert verified(*lines, fingerprint="size:3") == (None, None)
        assert status(*lines, fingerprint="size:3").status == "untested"

    def test_results_with_unknown_weights_can_block_but_not_verify_a_size(self) -> None:
        ok = a_result(8192)
        assert verified(ok, a_result(32768, fingerprint=None)) == (8192, "full")
        assert verified(ok, a_result(4096, "crashed", fingerprint=None)) == (None, None)

    def test_without_known_weights_all_results_belong_together(self) -> None:
        assert verified(a_result(fingerprint=None)) == (8192, "full")

    def test_other_engines_and_settings_can_be_left_out(self) -> None:
        lines = a_result(8192), a_result(8192, "crashed", engine="llamacpp", settings="{}")
        assert verified(*lines) == (None, None)
        assert verified(*lines, engine="lmstudio") == (8192, "full")
        assert verified(*lines, settings="") == (8192, "full")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["ok", "out_of_memory"], "completed"),
        (["out_of_memory", "wrong_answer"], "failed"),
        (["ok", "model_not_found"], "missing"),
        (["ok", "corrupted"], "corrupted"),
        (["model_not_found", "ok"], "completed"),
        (["ok", "unsupported"], "failed"),
        (["inconclusive"], "untested"),
        (["inconclusive", "timeout"], "failed"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_status(verdicts: list[str], expected: str) -> None:
    sizes = range(4096, 4096 + len(verdicts))
    assert status(*map(a_result, sizes, verdicts)).status == expected


def test_measurements_are_of_the_verified_size() -> None:
    found = status(
        a_result(8192, load_seconds=1.0, ttft_seconds=0.5, decode_tokens_per_second=40.0),
        a_result(16384, "crashed", load_seconds=9.0),
    )
    assert (found.load_seconds, found.ttft_seconds, found.decode_tokens_per_second) == (1, 0.5, 40)
    assert (found.verdict, found.last_tested) == ("crashed", a_result().at)
    assert status(a_result(verdict="crashed", load_seconds=9.0)).load_seconds is None


RESULTS = st.lists(
    st.builds(
        a_result,
        st.sampled_from([1, 2, 3, 4]),
        st.sampled_from(sorted(set(Verdict) - {"host_trouble"})),
        check=st.sampled_from(["fast", "full", "deep", "limit", "test_mine"]),
        host=st.sampled_from([None, "a:1"]),
        fingerprint=st.sampled_from([None, "size:1", "size:2"]),
    ),
    min_size=1,
)


@given(RESULTS, st.sampled_from([None, *get_args(VerifyingCheck)]))
def test_a_verified_size_passes_and_no_smaller_size_fails(
    results: list[Result], check: VerifyingCheck | None
) -> None:
    found = folded(*results).status("m", check=check)
    assert found is not None
    of_weights = [
        line
        for line in results
        if line.verdict != "unreachable" and line.fingerprint == found.fingerprint
    ]
    newest = {
        ("full" if line.check == "limit" else line.check, line.context_length): line.verdict
        for line in of_weights
    }
    size = found.verified_context
    if size is None:
        assert found.verified_check is None
        return
    assert found.verified_check in ("full", "deep")
    assert check in (None, found.verified_check)
    assert newest[found.verified_check, size] == "ok"
    for (other, smaller), verdict in newest.items():
        if smaller < size and other in ("full", "deep"):
            assert verdict.evidence not in ("bad", "open")


@given(RESULTS)
def test_the_verified_size_is_the_larger_of_both_checks(results: list[Result]) -> None:
    fold = folded(*results)
    sizes = {}
    for check in (None, *get_args(VerifyingCheck)):
        found = fold.status("m", check=check)
        assert found is not None
        sizes[check] = found.verified_context or 0
    assert sizes[None] == max(sizes["full"], sizes["deep"])
