"""Changes, regressions, and runs that fail because of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.core.types import Acceptance, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.history.change import Change
from pytest_lmstrix.registry.history.earlier import MOST_HISTORY, History
from pytest_lmstrix.registry.regressions import compare
from pytest_lmstrix.reports.changes import basis
from tests.end_to_end.project import Project
from tests.registry.results import a_result

SPEED = "decode_tokens_per_second"


def changes(before: list[Result], *now: Result, percent: float = 25.0) -> list[Change]:
    history = History()
    for old in before:
        history.add(old)
    return list(compare(now, history, percent=percent))


def kinds(before: list[Result], *now: Result) -> list[str]:
    return [change.kind for change in changes(before, *now)]


def test_a_newly_broken_size_reduces_the_verified_context() -> None:
    before = [a_result(4096), a_result(8192)]
    broken, smaller = changes(before, a_result(8192, "out_of_memory"))
    assert (broken.kind, broken.before, broken.after) == ("newly_broken", "ok", "out_of_memory")
    assert (smaller.kind, smaller.before, smaller.after) == ("smaller_context", 8192, 4096)
    assert broken.is_regression
    assert smaller.is_regression


def test_newly_working_and_larger_contexts_are_not_regressions() -> None:
    found = changes([a_result(4096), a_result(8192, "crashed")], a_result(8192))
    assert [change.kind for change in found] == ["newly_working", "larger_context"]
    assert not any(change.is_regression for change in found)


@pytest.mark.parametrize("open_between", [[], [a_result(8192, "inconclusive")]])
def test_a_size_that_works_again_says_since_when_it_did_not(open_between: list[Result]) -> None:
    broken = [a_result(8192, "crashed"), *open_between, a_result(8192, "timeout")]
    for day, each in enumerate(broken):
        broken[day] = replace(each, at=each.at + timedelta(days=day))
    good = [replace(a_result(8192), at=broken[0].at - timedelta(days=n)) for n in (2, 1)]
    worked = changes([*good, *broken], a_result(8192))
    assert [(change.kind, change.since) for change in worked if change.measure == "verdict"] == [
        ("newly_working", broken[0].at)
    ]
    assert basis(worked[0]) == f"was broken since {broken[0].at:%Y-%m-%d}"


@pytest.mark.parametrize("verdict", ["recall_failed", "out_of_memory", "timeout"])
@pytest.mark.parametrize(
    ("check", "size"), [("deep", 4096), ("fast", 4096), ("full", 2048), ("limit", 2048)]
)
def test_a_size_tried_for_the_first_time_does_not_reduce_the_context(
    check: str, size: int, verdict: str
) -> None:
    before = [a_result(4096), a_result(8192)]
    assert changes(before, a_result(size, verdict, check=check)) == []
    again = a_result(8192)
    assert changes(before, a_result(size, verdict, check=check), again) == []


@pytest.mark.parametrize("old", ["inconclusive", "model_not_found"])
def test_a_size_that_failed_before_does_not_reduce_the_context(old: str) -> None:
    found = changes([a_result(4096, old), a_result(8192)], a_result(4096, "crashed"))
    assert [(change.kind, change.is_regression) for change in found] == [("changed", False)]


@pytest.mark.parametrize("check", ["fast", "full", "deep"])
def test_a_newly_broken_smaller_size_reduces_the_context(check: str) -> None:
    before = [a_result(2048), a_result(4096, check=check), a_result(8192)]
    broken, smaller = changes(before, a_result(4096, "timeout", check=check))
    assert (broken.kind, broken.check, broken.is_regression) == ("newly_broken", check, True)
    assert (smaller.before, smaller.after, smaller.is_regression) == (8192, 2048, True)


def test_a_smaller_context_includes_the_search_results() -> None:
    now = (a_result(8192, "out_of_memory"), a_result(6000, check="limit"),
           a_result(7000, "out_of_memory", check="limit"))  # fmt: skip
    broken, smaller = changes([a_result(8192)], *now)
    assert (smaller.kind, smaller.before, smaller.after) == ("smaller_context", 8192, 6000)
    assert broken.is_regression
    assert smaller.is_regression


def test_limit_results_count_as_full_results() -> None:
    (smaller,) = changes([a_result(8192, check="limit")], a_result(8192, "crashed"))
    assert (smaller.kind, smaller.before, smaller.after) == ("smaller_context", 8192, None)


def test_a_pass_at_a_new_larger_size_is_a_larger_context() -> None:
    (larger,) = changes([a_result(4096)], a_result(8192))
    assert (larger.kind, larger.before, larger.after) == ("larger_context", 4096, 8192)
    assert not larger.is_regression


def test_a_missing_model_with_unknown_weights_is_newly_broken() -> None:
    assert kinds([a_result()], a_result(verdict="model_not_found", fingerprint=None)) == [
        "newly_broken"
    ]


@pytest.mark.parametrize("verdict", ["inconclusive", "unreachable", "host_trouble"])
def test_verdicts_not_about_the_model_are_not_regressions(verdict: str) -> None:
    assert not any(c.is_regression for c in changes([a_result()], a_result(verdict=verdict)))


def test_trouble_of_the_host_withdraws_what_its_run_recorded() -> None:
    blamed = [a_result(verdict="crashed", run="r2"), a_result(verdict="host_trouble", run="r2")]
    assert changes([a_result(run="r1"), *blamed], a_result(run="r3")) == []


def test_a_different_failure_is_a_change_but_not_a_regression() -> None:
    (change,) = changes([a_result(verdict="crashed")], a_result(verdict="timeout"))
    assert (change.kind, change.is_regression) == ("changed", False)


@pytest.mark.parametrize(
    "other", [{"fingerprint": "size:2"}, {"settings": '{"threads":1}'}, {"check": "deep"},
              {"check_version": 2}, {"context_length": 1}, {"model": "n"}],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_results_with_other_conditions_are_not_compared(other: dict[str, Any]) -> None:
    size = other.pop("context_length", 8192)
    assert changes([a_result(size, **other)], a_result(verdict="crashed")) == []


@pytest.mark.parametrize(
    ("other", "label"),
    [
        ({"machine": "b"}, "before on another machine"),
        ({"engine": "llamacpp"}, "before with llamacpp 2"),
        ({"host": "b:1"}, "before on b:1"),
    ],
)
def test_results_from_elsewhere_are_labelled_and_are_not_regressions(
    other: dict[str, Any], label: str
) -> None:
    now = a_result(verdict="crashed", machine="a", engine_version="2", host="a:1")
    old = {"machine": "a", "engine_version": "2", "host": "a:1"} | other
    (change,) = changes([a_result(**old)], now)
    assert (change.kind, change.elsewhere, change.is_regression) == ("newly_broken", label, False)


def test_comparable_results_are_preferred_to_newer_ones_from_elsewhere() -> None:
    before = [a_result(machine="a"), a_result(verdict="crashed", machine="b")]
    assert kinds(before, a_result(machine="a")) == []


def speeds(*values: float, **fields: Any) -> list[Result]:
    return [a_result(**{**fields, SPEED: value}) for value in values]


def test_a_speed_below_the_median_of_its_history_is_slower() -> None:
    (change,) = changes(speeds(49.0, 50.0, 51.0), *speeds(30.0))
    assert (change.kind, change.before, change.after) == ("slower", 50.0, 30.0)
    assert (change.spread, change.history, change.is_regression) == ((49.0, 51.0), 3, True)


def test_a_faster_result_is_reported() -> None:
    assert kinds(speeds(49.0, 50.0, 51.0), *speeds(80.0)) == ["faster"]


def test_a_longer_duration_is_slower_but_a_slow_load_is_not_a_regression() -> None:
    before = [a_result(ttft_seconds=1.0, load_seconds=1.0) for _ in range(3)]
    found = changes(before, a_result(ttft_seconds=2.0, load_seconds=2.0))
    assert [(c.kind, c.measure, c.is_regression) for c in found] == [
        ("slower", "ttft_seconds", True),
        ("slower", "load_seconds", False),
    ]


def test_differences_of_milliseconds_are_ignored() -> None:
    assert changes([a_result(ttft_seconds=0.01)] * 3, a_result(ttft_seconds=0.09)) == []


def test_a_noisy_history_widens_the_threshold() -> None:
    assert kinds(speeds(30.0, 45.0, 50.0, 55.0, 70.0), *speeds(33.0)) == []
    assert kinds(speeds(49.0, 50.0, 50.0, 50.0, 51.0), *speeds(33.0)) == ["slower"]


def test_the_percentage_is_configurable() -> None:
    before = speeds(50.0, 50.0, 50.0)
    assert changes(before, *speeds(46.0)) == []
    assert [c.kind for c in changes(before, *speeds(46.0), percent=5)] == ["slower"]


def test_one_earlier_value_shows_half_the_speed_but_not_two_thirds() -> None:
    (change,) = changes(speeds(50.0), *speeds(25.0))
    assert (change.kind, change.ratio, change.history, change.sizes) == ("slower", 0.5, 1, 1)
    assert changes(speeds(50.0), *speeds(34.0)) == []


def sized(factor: float, **fields: Any) -> list[Result]:
    return [a_result(size, **{SPEED: factor * 200_000 / size}, **fields)
            for size in (2048, 4096, 8192, 16_384)]  # fmt: skip


def test_all_sizes_of_a_model_are_samples_of_one_comparison() -> None:
    (change,) = changes(sized(1.0, engine_version="1"), *sized(0.7, engine_version="2"))
    assert (change.kind, change.sizes, change.history) == ("slower", 4, 4)
    assert (change.check, change.context_length) == (None, None)
    assert (change.earlier_version, change.is_regression) == ("1", True)
    assert change.ratio == pytest.approx(0.7)


def test_one_slow_size_of_four_is_not_a_slower_model() -> None:
    now = sized(1.0)
    now[0] = a_result(2048, **{SPEED: 1.0})
    assert changes(sized(1.0), *now) == []


def test_half_the_speed_after_an_update_stays_a_regression_until_accepted() -> None:
    before = [*speeds(50.0, 50.0, engine_version="1"), *speeds(*[25.0] * 9, engine_version="2")]
    (change,) = changes(before, *speeds(25.0, engine_version="2"))
    assert (change.kind, change.earlier_version, change.before) == ("slower", "1", 50.0)
    history = History()
    for old in before:
        history.add(old)
    history.accept(ACCEPTED)
    assert compare(speeds(25.0, engine_version="2"), history) == ()


ACCEPTED = Acceptance(at=datetime(2026, 3, 2, tzinfo=UTC), by="ann", model="m")


def test_a_break_after_an_update_is_a_regression_that_names_the_earlier_version() -> None:
    now = a_result(verdict="crashed", engine_version="0.4.19")
    broken, smaller = changes([a_result(engine_version="0.4.18")], now)
    assert [broken.kind, smaller.kind] == ["newly_broken", "smaller_context"]
    assert [broken.earlier_version, smaller.earlier_version] == ["0.4.18"] * 2
    assert broken.is_regression
    assert smaller.is_regression


def test_a_regression_stays_one_until_it_works_again() -> None:
    crashed = a_result(verdict="crashed", engine_version="2")
    before = [a_result(engine_version="1"), *[crashed] * 50]
    (change,) = changes(before, crashed)
    assert (change.kind, change.is_regression) == ("still_broken", True)
    assert (change.since, change.earlier_version) == (crashed.at, "1")
    works = a_result(engine_version="2")
    assert not any(each.is_regression for each in changes(before, works))
    assert changes([*before, works], works) == []


def test_a_regression_stays_one_however_many_failures_with_the_same_version_follow() -> None:
    crashed = a_result(verdict="crashed")
    assert kinds([a_result(), *[crashed] * 3 * MOST_HISTORY], crashed) == ["still_broken"]


def test_an_accepted_break_is_not_a_regression_until_it_works_and_breaks_again() -> None:
    crashed = a_result(verdict="crashed")
    history = History()
    for each in (a_result(), crashed):
        history.add(each)
    history.accept(ACCEPTED)
    assert compare([crashed], history) == ()
    history.add(a_result())
    assert any(each.is_regression for each in compare([crashed], history))


def test_a_failure_with_other_words_is_still_broken() -> None:
    before = [a_result(), a_result(verdict="crashed")]
    assert kinds(before, a_result(verdict="out_of_memory")) == ["still_broken"]


def test_only_the_newest_results_form_the_history() -> None:
    (change,) = changes(speeds(*[90.0] * MOST_HISTORY, *[50.0] * MOST_HISTORY), *speeds(20.0))
    assert (change.before, change.history) == (50.0, MOST_HISTORY)


def test_speeds_of_failures_are_not_in_the_history() -> None:
    assert changes(speeds(50.0, 50.0, 50.0, verdict="crashed"), a_result(verdict="crashed")) == []


@given(
    st.floats(1, 1e6),
    st.lists(st.floats(1, 1.2), min_size=1, max_size=30),
    st.lists(st.sampled_from(list(Verdict)), min_size=1, max_size=6),
)
def test_repeated_results_are_not_changes(
    speed: float, noise: list[float], verdicts: list[Verdict]
) -> None:
    # A slower phase among the earlier results would be a change: it is reported until it is over.
    values = [speed * factor for factor in noise]
    before = speeds(*values)
    before += [a_result(1024 * n, verdict) for n, verdict in enumerate(verdicts, 9)]
    again = [old for old in before if old.context_length != 8192]
    usual = sorted(values[-MOST_HISTORY:])[len(values[-MOST_HISTORY:]) // 2]
    found = changes(before, *again, *speeds(usual))
    assert [change for change in found if change.measure == "verdict"] == []
    if len(values) % 2:
        assert [change for change in found if change.measure == SPEED] == []


def test_a_regression_fails_the_session_and_is_listed(project: Project) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    project.engine(tiny="behaviours=(Corrupted(),)")
    result = project.run("--lmstrix", "--all")
    result.assert_outcomes(xfailed=2)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["changed *what*", "tiny*newly broken*full at 512*ok*corrupted*"])


def test_fail_on_regression_fails_the_run(project: Project) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    project.engine(tiny="behaviours=(Corrupted(),)")
    result = project.run("--lmstrix", "--all", "--lmstrix-fail-on-regression")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["lmstrix: 2 regressions failed this run"])
    again = project.run("--lmstrix", "--all", "--lmstrix-fail-on-regression=10")
    assert again.ret == pytest.ExitCode.TESTS_FAILED, "a regression stays one"
    again.stdout.fnmatch_lines(["tiny*still broken*full at 512*ok*corrupted*"])
    assert project.run("--lmstrix-accept").outlines == ["accepted as it is: tiny"]
    accepted = project.run("--lmstrix", "--all", "--lmstrix-fail-on-regression=10")
    assert accepted.ret == 0


@pytest.mark.parametrize("value", ["models.yaml", "-5", "0", "inf", "nan"])
def test_an_invalid_percentage_is_a_usage_error(project: Project, value: str) -> None:
    result = project.run("--lmstrix", f"--lmstrix-fail-on-regression={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"ERROR: --lmstrix-fail-on-regression: '{value}' is not a percentage*"]
    )
