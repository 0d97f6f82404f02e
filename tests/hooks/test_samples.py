"""Tests that run several times on one load, and must pass often enough."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project


def test_enough_passed_samples_pass_on_one_load(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import pytest
        ran = []
        @pytest.fixture
        def mine():
            return 7
        @pytest.mark.lmstrix(contexts=[512], samples=10, at_least=8)
        def test_own(lmstrix_model, mine):
            assert mine == 7
            ran.append(lmstrix_model.chat("2+3=", max_tokens=5).text)
            assert len(ran) not in (2, 5)
        """
    )
    project.run("--lmstrix", "-k", "test_own").assert_outcomes(passed=1)
    (result,) = project.results
    assert result.verdict is Verdict.OK
    assert (result.samples, result.passed_samples, result.required_samples) == (10, 8, 8)
    assert result.detail == (
        "8 of 10 samples passed (95 % interval 49 % to 94 %), at least 8 required"
    )
    assert result.replies == ("5",) * 10
    assert project.engine_log == ["load tiny 512", "unload tiny"]


def test_too_few_passed_samples_are_a_wrong_answer(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import pytest
        ran = []
        @pytest.mark.lmstrix(contexts=[512], samples=4)
        def test_own(lmstrix_model):
            ran.append(lmstrix_model.chat("2+3=", max_tokens=5))
            assert len(ran) != 3, "the third"
        """
    )
    result = project.run("--lmstrix", "-k", "test_own")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*assert len(ran) != 3*", "*3 of 4 samples passed (95 % interval 30 % to 95 %)*"]
    )
    assert "_hooks.py" not in result.stdout.str()
    assert "_skip_unable" not in result.stdout.str()
    (line,) = project.results
    assert line.verdict is Verdict.WRONG_ANSWER
    assert (line.samples, line.passed_samples, line.required_samples) == (4, 3, 4)
    assert "seed 2: AssertionError: the third" in line.detail


def test_each_sample_has_a_seed_and_a_temperature_of_its_own(project: Project) -> None:
    project.pytester.makeconftest(
        """
        from tests.standin.fake_engine import FakeEngine, FakeInstance
        asked = []
        class Seeded(FakeEngine):
            def load(self, *arguments):
                instance = super().load(*arguments)
                def chat(messages, *, max_tokens, temperature=0.0, seed=None):
                    asked.append((seed, temperature))
                    return FakeInstance.chat(instance, messages, max_tokens=max_tokens)
                instance.chat = chat
                return instance
        def pytest_lmstrix_engines(config):
            return [Seeded()]
        """
    )
    project.pytester.makepyfile(
        """
        import pytest
        from conftest import asked
        @pytest.mark.lmstrix(contexts=[512], samples=3)
        def test_own(lmstrix_model):
            lmstrix_model.chat("2+3=", max_tokens=5)
        @pytest.mark.lmstrix(contexts=[512], samples=1)
        def test_own_given(lmstrix_model):
            lmstrix_model.chat("2+3=", max_tokens=5, temperature=0, seed=9)
        def test_own_seen(lmstrix_model):
            lmstrix_model.chat("2+3=", max_tokens=5)
            assert asked == [(0, 0.8), (1, 0.8), (2, 0.8), (9, 0), (None, 0.0)]
        """
    )
    project.run("--lmstrix", "-k", "test_own and 512").assert_outcomes(passed=3)


@pytest.mark.parametrize("verdict", [Verdict.CRASHED, Verdict.TIMEOUT])
def test_a_crash_or_a_time_out_is_no_sample(project: Project, verdict: Verdict) -> None:
    project.pytester.makepyfile(
        f"""
        import pytest
        from pytest_lmstrix import Failure, Verdict
        ran = []
        @pytest.mark.lmstrix(contexts=[512], samples=10, at_least=1)
        def test_own(lmstrix_model):
            lmstrix_model.chat("2+3=", max_tokens=5)
            ran.append(1)
            if len(ran) == 3:
                raise Failure('broken', verdict=Verdict({verdict.value!r}))
        """
    )
    project.run("--lmstrix", "-k", "test_own").assert_outcomes(failed=1)
    (result,) = project.results
    assert (result.verdict, result.samples) == (verdict, None)


def test_a_skip_in_a_sample_skips_the_test(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import pytest
        @pytest.mark.lmstrix(contexts=[512], samples=10, at_least=1)
        def test_own(lmstrix_model):
            lmstrix_model.chat("2+3=", max_tokens=5)
            pytest.skip("not today")
        """
    )
    project.run("--lmstrix", "-k", "test_own").assert_outcomes(skipped=1)


def test_a_mistake_in_a_sample_is_no_verdict_on_the_model(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import pytest
        @pytest.mark.lmstrix(contexts=[512], samples=10, at_least=1)
        def test_own(lmstrix_model):
            lmstrix_model.chat("2+3=", max_tokens=5)
            lmstrix_model.chat("2+3=", max_tokens="5")
        """
    )
    result = project.run("--lmstrix", "-k", "test_own")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TypeError: max_tokens must be an int, got '5'*"])
    assert not (project.path / "reports" / "registry.jsonl").exists() or project.results == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("samples=0", "samples must be a whole number from 1 to 1,000, got 0"),
        ("samples='3'", "samples must be a whole number from 1 to 1,000, got '3'"),
        ("samples=3, at_least=4", "at_least must be a whole number from 1 to samples=3, got 4"),
        ("at_least=4", "at_least needs samples=..."),
        ("sample=3", "takes match=..., contexts=..., samples=... and at_least=..., not sample=..."),
    ],
)
def test_a_mistake_in_the_mark_is_an_error(project: Project, arguments: str, problem: str) -> None:
    project.pytester.makepyfile(
        f"""
        import pytest
        @pytest.mark.lmstrix({arguments})
        def test_own(lmstrix_model):
            pass
        """
    )
    result = project.run("--lmstrix", "-k", "test_own")
    result.stdout.fnmatch_lines([f"*@pytest.mark.lmstrix: {problem}*"])
