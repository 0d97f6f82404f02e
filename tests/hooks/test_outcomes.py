"""Verdicts in pytest outcomes, the registry, the terminal and the report."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project


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


def test_the_html_report_has_model_columns(project: Project) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    report = (project.path / "reports" / "report.html").read_text(encoding="utf-8")
    for heading in ("Model", "Context", "Verdict", "recommended", "prefill", "decode"):
        assert heading in report


def test_an_explicit_html_option_is_respected(project: Project) -> None:
    project.run("--lmstrix", "--html", "mine.html").assert_outcomes(passed=2)
    assert (project.path / "mine.html").exists()
    assert not (project.path / "reports" / "report.html").exists()


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
