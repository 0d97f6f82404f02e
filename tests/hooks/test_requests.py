"""What an engine cannot do, and mistakes in the arguments, as outcomes of tests."""

from __future__ import annotations

import pytest

from tests.end_to_end.project import Project

ASKS = """
import pytest
def test_own(lmstrix_model):
    lmstrix_model.chat("2+3=", max_tokens=5)
    lmstrix_model.{request}
"""


@pytest.mark.parametrize(
    "request_",
    [
        "complete(42, max_tokens=5)",
        "chat(42, max_tokens=5)",
        "chat('2+3=', max_tokens=5, schema={'type': 5})",
        "chat('2+3=', max_tokens=5, tools=[5])",
        "chat('2+3=', max_tokens=5, images=['no-such.png'])",
        "chat('2+3=', max_tokens=5, fill=2.5)",
        "chat('2+3=', max_tokens=5).parsed",
        "count_tokens(5)",
    ],
)
def test_a_mistake_in_the_arguments_is_no_verdict_on_the_model(
    project: Project, request_: str
) -> None:
    project.pytester.makepyfile(ASKS.format(request=request_))
    project.run("--lmstrix", "-k", "test_own and 512").assert_outcomes(failed=1)
    registry = project.path / "reports" / "registry.jsonl"
    assert not registry.exists() or project.results == []
    assert project.engine_log == ["load tiny 512", "unload tiny"]


def test_what_an_engine_cannot_do_skips_the_test_with_the_reason(project: Project) -> None:
    request = "chat('2+3=', max_tokens=5, seed=1)"
    project.pytester.makepyfile(ASKS.format(request=request))
    result = project.run("--lmstrix", "-rs", "-k", "test_own and 512")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*: engine 'fake' takes no seed in chat"])


def test_what_a_test_requires_of_an_engine_fails_it(project: Project) -> None:
    request = "chat('2+3=', max_tokens=5, seed=1, required=True)"
    project.pytester.makepyfile(ASKS.format(request=request))
    result = project.run("--lmstrix", "-k", "test_own and 512")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*RuntimeError: required by the test: engine 'fake' takes no seed*"]
    )
    registry = project.path / "reports" / "registry.jsonl"
    assert not registry.exists() or project.results == []


def test_a_fixture_may_ask_for_what_an_engine_cannot_do(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import pytest
        @pytest.fixture
        def answer(lmstrix_model):
            return lmstrix_model.chat("2+3=", max_tokens=5, seed=1)
        def test_own(answer):
            pass
        """
    )
    project.run("--lmstrix", "-k", "test_own and 512").assert_outcomes(skipped=1)


def test_an_answer_that_breaks_its_schema_is_a_wrong_answer(project: Project) -> None:
    project.pytester.makepyfile(
        """
        def test_own(lmstrix_model):
            lmstrix_model.chat("2+3=", max_tokens=5, schema={"type": "string"}).parsed
        """
    )
    project.run("--lmstrix", "-k", "test_own and 512").assert_outcomes(failed=1)
    (result,) = project.results
    assert result.verdict == "wrong_answer"
    assert "the schema is not kept: $: 5 is not of type 'string'" in result.detail
