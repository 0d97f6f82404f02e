"""Outcomes of users' own tests."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project


def test_a_failed_user_assertion_is_a_wrong_answer(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import json, pytest
        @pytest.fixture
        def broken():
            assert 0, "my own set-up"
        def test_set_up(broken, lmstrix_model):
            pass
        def test_asserted(lmstrix_model):
            assert lmstrix_model.chat("2+3=", max_tokens=5).text == "6"
        def test_parsed(lmstrix_model):
            json.loads(lmstrix_model.complete("Say hello", max_tokens=5).text)
        def test_failed(lmstrix_model):
            pytest.fail(lmstrix_model.complete("Say hello", max_tokens=5).text)
        def test_buggy(lmstrix_model):
            lmstrix_model.no_such_thing
        def test_fine(lmstrix_model):
            assert "5" in lmstrix_model.chat("2+3=", max_tokens=5).text
        """
    )
    result = project.run("--lmstrix", "-k", "512 and not full")
    result.assert_outcomes(passed=1, failed=4, errors=1)
    found = {r.check: (r.verdict, r.outcome) for r in project.results}
    assert found == {
        "test_asserted": (Verdict.WRONG_ANSWER, "failed"),
        "test_failed": (Verdict.WRONG_ANSWER, "failed"),
        "test_parsed": (Verdict.WRONG_ANSWER, "failed"),
        "test_fine": (Verdict.OK, "passed"),
    }
    assert project.engine_log == ["load tiny 512", "unload tiny"]


@pytest.mark.parametrize("text", ["", "<|channel|>analysis<|message|>The user wants a number"])
def test_what_only_the_chat_template_answers_passes_with_a_note(
    project: Project, text: str
) -> None:
    project.engine(tiny=f"behaviours=(ChatOnly(text={text!r}),)", plain="")
    project.manifest("[{id: tiny, contexts: [512]}, {id: plain, contexts: [512]}]")
    result = project.run("-m", "full")
    result.assert_outcomes(passed=2)
    found = {r.model: r for r in project.results}
    assert (found["tiny"].form, found["plain"].form) == ("chat", "completion")
    assert [note.partition(":")[0] for note in found["tiny"].notes] == ["chat"]
    assert found["plain"].notes == ()
    result.stdout.fnmatch_lines(["tiny *ok, chat *"])


def test_a_mistake_in_a_user_test_gives_the_model_no_verdict(project: Project) -> None:
    project.manifest("[{id: tiny, contexts: [512]}]")
    project.pytester.makepyfile(
        """
        import json
        def test_signature(lmstrix_model): lmstrix_model.chat("hi", max_tokens=5, heat=1)
        def test_missing(lmstrix_model):
            lmstrix_model.chat("2+3=", max_tokens=5)
            lmstrix_model.chat("hi")
        def test_name(lmstrix_model): lmstrix_model.chat(no_such_name, max_tokens=5)
        def test_early(lmstrix_model): {}["x"]
        def test_helper(lmstrix_model):
            lmstrix_model.chat("2+3=", max_tokens=5)
            (lambda one: one)(1, 2)
        def test_inside(lmstrix_model):
            lmstrix_model.chat("2+3=", max_tokens=5)
            lmstrix_model.chat("hi", max_tokens=5, temperature="hot")
        def test_reply(lmstrix_model):
            json.loads(lmstrix_model.chat("2+3=", max_tokens=5).text)["city"]
        def test_warm(lmstrix_model):
            assert lmstrix_model.chat("2+3=", max_tokens=5, temperature=0.5).text == "5"
        """
    )
    project.run("--lmstrix", "-k", "not full").assert_outcomes(passed=1, failed=7)
    assert {r.check: r.verdict for r in project.results} == {
        "test_reply": Verdict.WRONG_ANSWER,
        "test_warm": Verdict.OK,
    }


def test_a_failed_load_fails_user_tests(project: Project) -> None:
    project.engine(tiny="behaviours=(OutOfMemory(above=600),)", lost="behaviours=(Corrupted(),)")
    project.manifest("[{id: tiny, contexts: [512, 1024]}, {id: lost, contexts: [512, 1024]}]")
    project.pytester.makepyfile(
        "def test_own(lmstrix_model): lmstrix_model.complete('2+3=', max_tokens=3)"
    )
    result = project.run("--lmstrix", "-k", "test_own")
    result.assert_outcomes(passed=1, failed=1, xfailed=2)
    assert {r.verdict for r in project.results} == {"ok", "out_of_memory", "corrupted"}
    assert "Traceback" not in result.stdout.str()
    result.stdout.fnmatch_lines(["out_of_memory: *", "Try a smaller context*"])


def test_a_model_that_crashed_in_a_user_test_is_reloaded_for_the_next(project: Project) -> None:
    project.engine(tiny="behaviours=(Crashes(at='predict', times=1),)")
    project.pytester.makepyfile(
        """
        def test_one(lmstrix_model): lmstrix_model.complete("2+3=", max_tokens=3)
        def test_two(lmstrix_model): lmstrix_model.complete("2+3=", max_tokens=3)
        """
    )
    project.pytester.makeini("[pytest]\ntestpaths = test_a_model_that_crashed*.py")
    result = project.run("--lmstrix", "--lmstrix-ctx=512")
    result.assert_outcomes(passed=2, failed=1)
    assert {r.check: r.verdict for r in project.results} == {
        "test_one": Verdict.CRASHED,
        "test_two": Verdict.OK,
        "full": Verdict.OK,
    }
    assert project.engine_log == 2 * ["load tiny 512", "unload tiny"]


def test_a_failed_load_of_a_user_test_is_retried(project: Project) -> None:
    project.engine(
        tiny="behaviours=(Crashes(at='load', times=1),)",
        dead="behaviours=(Crashes(at='load', times=2),)",
        broken="behaviours=(Corrupted(at='load'),)",
    )
    project.manifest("[{id: tiny}, {id: dead}, {id: broken}]")
    project.pytester.makepyfile(test_own="def test_own(lmstrix_model): assert lmstrix_model")
    result = project.run("--lmstrix", "--lmstrix-ctx=512", "-k", "test_own", "--junitxml=out.xml")
    result.assert_outcomes(passed=1, failed=1, xfailed=1)
    junit = (project.path / "out.xml").read_text(encoding="utf-8")
    assert junit.count('name="lmstrix_retried" value="True"') == 2
    assert {r.model: (r.verdict, r.retried) for r in project.results} == {
        "tiny": (Verdict.OK, True),
        "dead": (Verdict.CRASHED, True),
        "broken": (Verdict.CORRUPTED, False),
    }
    assert len(project.engine_log) == 6


def test_an_edited_user_test_runs_again(project: Project) -> None:
    project.pytester.makepyfile(test_own="def test_own(lmstrix_model): assert lmstrix_model")
    assert len(project.ids("--lmstrix", "test_own.py")) == 2
    project.run("--lmstrix", "test_own.py").assert_outcomes(passed=2)
    assert project.ids("--lmstrix", "test_own.py") == []
    project.pytester.makepyfile(test_own="def test_own(lmstrix_model): assert 1")
    assert len(project.ids("--lmstrix", "test_own.py")) == 2


def test_user_tests_with_one_name_in_two_files_are_distinct(project: Project) -> None:
    source = "import pathlib\ndef test_one(lmstrix_model): assert 'good' in __file__"
    project.pytester.makepyfile(test_bad=source, test_good=source)
    project.run("--lmstrix", "test_bad.py", "test_good.py").assert_outcomes(passed=2, failed=2)
    again = project.ids("--lmstrix", "test_bad.py", "test_good.py")
    assert [each for each in again if each.startswith("test_bad.py")] == [
        "test_bad.py::test_one[tiny-512]",
        "test_bad.py::test_one[tiny-1024]",
    ]


def test_a_reload_with_a_smaller_context_does_not_pass(project: Project) -> None:
    project.pytester.makeconftest(
        """
        from pytest_lmstrix import Reply
        class Instance:
            def __init__(self, context_length): self.context_length = context_length
            def complete(self, prompt, *, max_tokens, temperature=0.0): return Reply(text="x")
            def unload(self): pass
        class Shrinking:
            name = "fake"
            loads = 0
            def models(self): return []
            def load(self, model, context_length, progress):
                self.loads += 1
                return Instance(context_length if self.loads == 1 else 100)
        def pytest_lmstrix_engines(config): return Shrinking()
        """
    )
    project.pytester.makepyfile(
        """
        def test_own(lmstrix_model):
            lmstrix_model.unload()
            assert lmstrix_model.complete("x", max_tokens=1).text == "x"
        """
    )
    project.run("--lmstrix", "-k", "test_own and 512").assert_outcomes(failed=1)
    (result,) = project.results
    assert result.verdict is Verdict.CONTEXT_NOT_GRANTED
