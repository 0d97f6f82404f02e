"""Hostile replies and causes are sanitized in the terminal, the report and JUnit XML."""

from __future__ import annotations

from tests.end_to_end.project import Project

HOSTILE = r'"<script>alert(1)</script>\x1b[31m\x1b]0;title\x07\x00\u202e<b>bold</b>"'


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
