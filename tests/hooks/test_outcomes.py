"""Verdicts in pytest outcomes, the registry, the terminal, JUnit and the report."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project

HOSTILE = r'"<script>alert(1)</script>\x1b[31m\x1b]0;title\x07\x00\u202e<b>bold</b>"'


def test_every_judged_case_has_a_registry_line_with_measurements(project: Project) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    first, second = project.results
    assert (first.context_length, second.context_length) == (512, 1024)
    assert first.run == second.run
    assert (first.model, first.engine, first.check) == ("tiny", "fake", "full")
    assert (first.granted_context_length, first.verdict, first.outcome) == (
        512,
        Verdict.OK,
        "passed",
    )
    assert first.replies == ("96", "5")
    assert first.decode_tokens_per_second is None, "replies of a few tokens show no rate"
    assert first.ttft_seconds is not None
    assert first.load_seconds is not None
    assert first.prompt_tokens
    assert first.fingerprint == "size:2000000000 path:publisher/tiny/tiny.gguf"
    assert first.at.tzinfo is not None


def test_a_result_is_on_disk_before_the_next_test_starts(project: Project) -> None:
    project.pytester.makepyfile(
        """
        from pathlib import Path
        def test_own(lmstrix_model):
            lines = Path("reports/registry.jsonl").read_bytes().splitlines()
            assert len(lines) == {512: 0, 1024: 1}[lmstrix_model.context_length]
        """
    )
    (project.path / "reports").mkdir()
    (project.path / "reports" / "registry.jsonl").touch()
    project.run("--lmstrix", "-k", "test_own").assert_outcomes(passed=2)


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


@pytest.mark.parametrize(("granted", "passes"), [(511, False), (512, True), (513, True)])
def test_the_granted_context_is_verified(project: Project, granted: int, passes: bool) -> None:
    how = f"GrantsAtMost(tokens={granted})" if granted <= 512 else "GrantsMore(extra=1)"
    project.engine(tiny=f"behaviours=({how},)")
    project.manifest("[{id: tiny, contexts: [512]}]")
    project.run("-m", "fast or full").assert_outcomes(**{"passed" if passes else "failed": 2})
    expected = Verdict.OK if passes else Verdict.CONTEXT_NOT_GRANTED
    assert {r.verdict for r in project.results} == {expected}
    if not passes:
        assert "asked for 512" in project.results[0].detail
        assert f"granted {granted}" in project.results[0].detail


def test_a_context_padded_to_a_multiple_of_256_passes(project: Project) -> None:
    project.engine(tiny="behaviours=(GrantsMore(multiple_of=256),)")
    project.manifest("[{id: tiny, contexts: [30000]}]")
    project.run("--lmstrix").assert_outcomes(passed=1)
    assert project.results[0].granted_context_length == 30_208


def test_hostile_replies_are_sanitized(project: Project) -> None:
    project.engine(tiny=f"behaviours=(Says(text={HOSTILE}),)", decoy="")
    project.manifest("[{id: tiny, contexts: [512]}]")
    result = project.run("--lmstrix", "--color=no")
    result.assert_outcomes(failed=1)
    shown = result.stdout.str()
    report = (project.path / "reports" / "report.html").read_text(encoding="utf-8")
    for text in (shown, report):
        assert not set(text) & set("\x1b\x00\x07\u202e")
    assert "<script>alert(1)" not in report
    assert "alert(1)" in report
    assert "<b>bold</b>" not in report
    assert "alert(1)" in project.results[0].replies[0]


def test_the_html_report_has_model_columns(project: Project) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    report = (project.path / "reports" / "report.html").read_text(encoding="utf-8")
    for heading in ("Model", "Context", "Verdict", "recommended", "prefill", "decode"):
        assert heading in report


def test_an_explicit_html_option_is_respected(project: Project) -> None:
    project.run("--lmstrix", "--html", "mine.html").assert_outcomes(passed=2)
    assert (project.path / "mine.html").exists()
    assert not (project.path / "reports" / "report.html").exists()


def test_junit_has_properties_and_reasons(project: Project) -> None:
    project.engine(tiny="", lost="behaviours=(MissingFromDisk(),)")
    project.manifest("[{id: tiny, contexts: [512]}, {id: lost, contexts: [512]}]")
    project.run("--lmstrix", "--junitxml=out.xml").assert_outcomes(passed=1, xfailed=1)
    cases = {case.get("name"): case for case in ET.parse(project.path / "out.xml").iter("testcase")}
    properties = {
        each.get("name"): each.get("value")
        for each in cases["test_full[tiny-512]"].iter("property")
    }
    assert properties["lmstrix_model"] == "tiny"
    assert properties["lmstrix_context_length"] == "512"
    assert properties["lmstrix_verdict"] == "ok"
    skipped = cases["test_full[lost-512]"].find("skipped")
    assert skipped is not None
    assert "model_not_found" in str(skipped.get("message"))


def junit_properties(project: Project) -> dict[str, dict[str, str]]:
    """The properties of each test in out.xml."""
    cases = ET.parse(project.path / "out.xml").iter("testcase")
    return {
        str(case.get("name")): {
            str(each.get("name")): str(each.get("value")) for each in case.iter("property")
        }
        for case in cases
    }


def asked(model: str, size: int) -> dict[str, str]:
    return {"lmstrix_model": model, "lmstrix_context_length": str(size)}


def test_junit_has_model_and_size_of_a_skipped_test(project: Project) -> None:
    project.engine(tiny="behaviours=(OutOfMemory(above=5000),)")
    project.manifest("[{id: tiny, contexts: [8192, 16384, 32768]}]")
    project.run("--lmstrix", "--junitxml=out.xml").assert_outcomes(failed=1, skipped=2)
    found = junit_properties(project)
    assert found["test_full[tiny-8192]"]["lmstrix_verdict"] == "out_of_memory"
    assert found["test_full[tiny-16384]"] == asked("tiny", 16384)
    assert found["test_full[tiny-32768]"] == asked("tiny", 32768)


def test_junit_has_model_and_size_of_an_unreachable_test(project: Project) -> None:
    project.pytester.makeconftest(
        """
        from pytest_lmstrix.weights.download import WEIGHTS
        from pytest_lmstrix.core.failure import Failure
        from pytest_lmstrix.core.verdicts import Verdict
        class Gone:
            name = "fake"
            def models(self): return []
            def load(self, model, context_length, progress):
                raise Failure("gone", verdict=Verdict.UNREACHABLE, phase="load", code=WEIGHTS)
        def pytest_lmstrix_engines(config): return Gone()
        """
    )
    project.run("--lmstrix", "--junitxml=out.xml").assert_outcomes(errors=1, skipped=1)
    found = junit_properties(project)
    assert found["test_full[tiny-512]"]["lmstrix_verdict"] == "unreachable"
    assert found["test_full[tiny-1024]"] == asked("tiny", 1024)


def test_junit_has_model_and_size_of_a_broken_test(project: Project) -> None:
    project.pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.fixture
        def broken(): raise RuntimeError("bug")
        def test_broken(broken, lmstrix_model): pass
        def test_buggy(lmstrix_model): lmstrix_model.no_such_thing
        @pytest.mark.skip
        def test_skipped(lmstrix_model): pass
        """
    )
    project.manifest("[{id: tiny, contexts: [512]}]")
    result = project.run("--lmstrix", "test_own.py", "--junitxml=out.xml")
    result.assert_outcomes(errors=1, failed=1, skipped=1)
    found = junit_properties(project)
    assert len(found) == 3
    assert all(properties == asked("tiny", 512) for properties in found.values())


def test_the_summary_table(project: Project) -> None:
    result = project.run("--lmstrix")
    result.stdout.fnmatch_lines(
        [
            "model  declared  verified  first bad  verdict*",
            "tiny    131,072     1,024          -*ok*",
        ]
    )


def test_checks_of_one_size_share_a_load(project: Project) -> None:
    project.run("-m", "fast or full").assert_outcomes(passed=4)
    assert project.engine_log == ["load tiny 512", "unload tiny", "load tiny 1024", "unload tiny"]


@pytest.mark.parametrize("args", [("-x",), ("--maxfail=1",)])
def test_stopping_early_unloads(project: Project, args: tuple[str, ...]) -> None:
    project.engine(tiny="behaviours=(Says(text=''),)")
    project.run("--lmstrix", *args).assert_outcomes(failed=1)
    assert project.engine_log == ["load tiny 512", "unload tiny"]


def test_last_failed_runs_what_failed(project: Project) -> None:
    project.engine(tiny="behaviours=(OutOfMemory(above=600),)")
    project.run("--lmstrix", "--all").assert_outcomes(passed=1, failed=1)
    project.run("--lmstrix", "--all", "--lf").assert_outcomes(failed=1)


def test_a_registry_that_cannot_be_read_is_a_usage_error(project: Project) -> None:
    (project.path / "reports" / "registry.jsonl").mkdir(parents=True)
    result = project.run("--lmstrix")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, result.errlines)
    assert "registry.jsonl" in line
    assert project.engine_log == []


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


def test_a_registry_that_becomes_unwritable_ends_the_run(project: Project) -> None:
    project.pytester.makepyfile(
        """
        from pathlib import Path
        def test_own(lmstrix_model):
            registry = Path("reports/registry.jsonl")
            if registry.is_file():
                registry.rename("moved.jsonl")
                registry.mkdir()
        """
    )
    result = project.run("--lmstrix", "--lmstrix-ctx=1,2,3,4", "-k", "test_own")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*results cannot be recorded*registry.jsonl*"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert project.engine_log == ["load tiny 1", "unload tiny", "load tiny 2", "unload tiny"]


def test_xdist_gives_the_same_results(project: Project) -> None:
    project.engine(tiny="", lost="behaviours=(MissingFromDisk(),)", big="size_bytes=5")
    models = ", ".join(f"{{id: {key}, contexts: [512, 1024]}}" for key in ("tiny", "lost", "big"))
    project.manifest(f"[{models}]")
    result = project.run_apart("--lmstrix", "--all", "-n", "2", "--junitxml=out.xml")
    result.assert_outcomes(passed=4, xfailed=2)
    result.stdout.fnmatch_lines(["*tiny*131,072*1,024*ok*", "recorded in *"])
    assert len(project.results) == 6
    assert (project.path / "reports" / "report.html").exists()
    assert "lmstrix_verdict" in (project.path / "out.xml").read_text(encoding="utf-8")


def test_cached_results_are_not_run_again(project: Project) -> None:
    project.engine(tiny="behaviours=(OutOfMemory(above=600),)")
    project.run("--lmstrix").assert_outcomes(passed=1, failed=1)
    project.run("--lmstrix").assert_outcomes(failed=1, deselected=1)
    project.run("--lmstrix", "-k", "tiny").assert_outcomes(passed=1, failed=1)
    project.run("--lmstrix", "--all").assert_outcomes(passed=1, failed=1)


def test_a_run_with_only_cached_results_succeeds(project: Project) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    result = project.run("--lmstrix")
    result.assert_outcomes(deselected=2)
    assert result.ret == pytest.ExitCode.OK
    assert project.run("--lmstrix", "-k", "nothing").ret == pytest.ExitCode.NO_TESTS_COLLECTED


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


@pytest.mark.parametrize(
    "trouble",
    [
        "raise SystemExit(3)",
        "return Instance(None)",
        "return Instance('512')",
        "return Instance(0)",
        "return Instance(2**70)",
    ],
)
def test_a_misbehaving_engine_is_an_engine_error(project: Project, trouble: str) -> None:
    project.pytester.makeconftest(
        f"""
        class Instance:
            def __init__(self, context_length): self.context_length = context_length
            def unload(self): pass
        class Odd:
            name = "fake"
            def models(self): return []
            def load(self, model, context_length, progress):
                {trouble}
        def pytest_lmstrix_engines(config): return [Odd()]
        """
    )
    result = project.run("--lmstrix")
    result.assert_outcomes(failed=2)
    assert {r.verdict for r in project.results} == {Verdict.ENGINE_ERROR}
    assert "Traceback" not in result.stdout.str()


def test_replies_shown_by_user_tests_are_sanitized(project: Project) -> None:
    project.engine(tiny=f"behaviours=(Says(text={HOSTILE}),)")
    project.manifest("[{id: tiny, contexts: [512]}]")
    project.pytester.makepyfile(
        """
        def reply(model): return model.chat("hi", max_tokens=9).text
        def test_compared(lmstrix_model): assert reply(lmstrix_model) == "hi"
        def test_raised(lmstrix_model): raise ValueError(reply(lmstrix_model))
        def test_printed(lmstrix_model):
            print(reply(lmstrix_model))
            assert 0
        """
    )
    result = project.run("--lmstrix", "--color=no", "-l", "-k", "not full", "--junitxml=out.xml")
    result.assert_outcomes(failed=3)
    assert not set(result.stdout.str()) & set("\x1b\x00\x07\u202e")
    assert "alert(1)" in result.stdout.str()


def test_a_failed_load_reports_its_sanitized_cause_once(project: Project) -> None:
    project.pytester.makeconftest(
        r"""
        class Odd:
            name = "fake"
            def models(self): return []
            def load(self, model, context_length, progress):
                raise RuntimeError("odd \x1b[31m red")
        def pytest_lmstrix_engines(config): return [Odd()]
        """
    )
    project.pytester.makepyfile("def test_own(lmstrix_model): pass")
    result = project.run("--lmstrix", "--color=no", "-k", "test_own and 512")
    result.assert_outcomes(failed=1)
    assert "\x1b" not in result.stdout.str()
    assert "RuntimeError: odd  red" in result.stdout.str()
