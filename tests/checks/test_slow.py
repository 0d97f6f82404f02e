"""The note on sizes that pass but decode much more slowly."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.checks.slow import CLIFF, slow_note
from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project

RATES = st.dictionaries(st.integers(1, 1_000), st.floats(0.1, 1_000.0))
NOTE = "slow: decodes 10.0 tokens/s, 50.0 at 1,024"


@given(RATES, st.integers(1, 1_000), st.floats(0.1, 1_000.0))
def test_speed_is_compared_to_the_next_smaller_size_only(
    known: dict[int, float], size: int, rate: float
) -> None:
    below = [other for other in known if other < size]
    slow = bool(below) and CLIFF * rate < known[max(below)]
    assert (slow_note(size, rate, known) is not None) is slow


@pytest.mark.parametrize(("rate", "slow"), [(16.0, True), (17.0, False), (60.0, False)])
def test_a_speed_below_a_third_is_slow(rate: float, slow: bool) -> None:
    note = slow_note(2_000, rate, {500: 1.0, 1_000: 50.0, 2_000: 999.0, 4_000: 999.0})
    assert (note == f"slow: decodes {rate:.1f} tokens/s, 50.0 at 1,000") is slow


@pytest.fixture
def slow(project: Project) -> Project:
    """A project with a model that decodes five times slower above 2,000 tokens.

    Checks of its own decode enough tokens for a rate.
    """
    says = "Says(text='a word ' * 200)"
    project.engine(tiny=f"behaviours=(SlowDecode(above=2000, tokens_per_second=10), {says})")
    project.manifest("[{id: tiny, contexts: [512, 1024, 2048, 4096]}]")
    project.pytester.makepyfile(
        """
        def test_long(lmstrix_model):
            lmstrix_model.complete("Once", max_tokens=64)

        def test_other(lmstrix_model):
            lmstrix_model.complete("Once", max_tokens=64)

        def test_short(lmstrix_model):
            lmstrix_model.complete("Once", max_tokens=63)
        """
    )
    return project


def test_a_speed_drop_is_a_note_not_a_failure(slow: Project) -> None:
    slow.run("--lmstrix", "-k", "test_long").assert_outcomes(passed=4)
    assert {r.verdict for r in slow.results} == {Verdict.OK}
    assert [r.notes for r in slow.results] == [(), (), (NOTE,), ()]
    assert {r.decode_tokens for r in slow.results} == {64}


def test_a_rate_from_63_tokens_is_neither_recorded_nor_noted(slow: Project) -> None:
    slow.run("--lmstrix", "-k", "test_short").assert_outcomes(passed=4)
    assert [r.notes for r in slow.results] == [()] * 4
    assert {r.decode_tokens_per_second for r in slow.results} == {None}


def test_a_speed_drop_is_in_the_table_reports_and_junit(slow: Project) -> None:
    result = slow.run("--lmstrix", "-k", "test_long", "--junitxml=out.xml")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["tiny *ok, slow *"])
    assert "ok, slow" in (slow.path / "reports" / "summary.md").read_text(encoding="utf-8")
    report = (slow.path / "reports" / "report.html").read_text(encoding="utf-8")
    assert "ok, slow" in report
    assert NOTE in report
    properties = [
        (case.get("name"), each.get("value"))
        for case in ET.parse(slow.path / "out.xml").iter("testcase")
        for each in case.iter("property")
        if each.get("name") == "lmstrix_notes"
    ]
    assert properties == [("test_long[tiny-2048]", NOTE)]


def test_the_smaller_size_can_be_from_an_earlier_run(slow: Project) -> None:
    slow.run("--lmstrix", "-k", "test_long", "--lmstrix-ctx", "1024").assert_outcomes(passed=1)
    slow.run("--lmstrix", "-k", "test_long", "--lmstrix-ctx", "2048").assert_outcomes(passed=1)
    assert slow.results[-1].notes == (NOTE,)


def test_speeds_of_other_checks_are_not_compared(slow: Project) -> None:
    slow.run("--lmstrix", "-k", "test_other", "--lmstrix-ctx", "1024").assert_outcomes(passed=1)
    slow.run("--lmstrix", "-k", "test_long", "--lmstrix-ctx", "2048").assert_outcomes(passed=1)
    assert slow.results[-1].notes == ()
