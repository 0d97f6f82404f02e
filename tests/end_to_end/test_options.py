"""Errors in options and manifest: one line, exit 4, no traceback, the same under xdist."""

from __future__ import annotations

import pytest

from tests.end_to_end.project import Project

MISTAKES = {
    "ctx word": (("--lmstrix-ctx=eight",), "--lmstrix-ctx: 'eight' is not a context length*"),
    "ctx zero": (("--lmstrix-ctx=0",), "--lmstrix-ctx: '0' is not a context length*"),
    "ctx huge": (("--lmstrix-ctx=2147483648",), "--lmstrix-ctx: '2147483648'*2,147,483,647*"),
    "timeout": (("--lmstrix-load-timeout=0",), "--lmstrix-load-timeout: 0 is not a valid number*"),
    "endless": (
        ("--lmstrix-reply-timeout=inf",),
        "--lmstrix-reply-timeout: inf is not a valid number*",
    ),
    "cooldown": (("--lmstrix-cooldown=-1",), "--lmstrix-cooldown: -1 is not a valid number*"),
    "sort": (
        ("--lmstrix-sort=speed",),
        "--lmstrix-sort: 'speed' is not a valid key; choose from smart, *",
    ),
    "sort d": (("--lmstrix-sort=d",), "--lmstrix-sort: 'd' is not a valid key*"),
    "host": (("--lmstrix-host=ftp://x:1",), "--lmstrix-host: 'ftp://x:1' is not host:port*"),
    "host-engine": (
        ("--lmstrix-host=olama://x:1",),
        "--lmstrix-host: 'olama://x:1' is not host:port or ENGINE://host:port: 'olama' is not a"
        " known engine; did you mean 'ollama'?",
    ),
    "tls": (("--lmstrix-host=https://x:1",), "--lmstrix-host: 'https://x:1': TLS is not supp*"),
    "port": (("--lmstrix-host=a:99999",), "--lmstrix-host: 'a:99999' is not host:port*"),
    "engine": (("--lmstrix-engine=lmstudo",), "models.yaml: *'lmstudo'*did you mean 'lmstudio'?"),
    "manifest": (("--lmstrix-models=no.yaml",), "*no.yaml*--lmstrix-scan*"),
}


@pytest.mark.parametrize("case", MISTAKES)
@pytest.mark.parametrize("apart", [False, True], ids=["serial", "xdist"])
def test_a_usage_error_is_one_line_with_exit_4(project: Project, case: str, apart: bool) -> None:
    args, expected = MISTAKES[case]
    project.pytester.makefile(".yaml", models="models: [{id: tiny, contexts: [512]}]")
    more = ("-n", "2") if apart else ()
    result = project.run("--lmstrix", *args, *more)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line]
    result.stderr.fnmatch_lines([f"ERROR: {expected}"])
    assert line.startswith("ERROR: ")
    assert project.engine_log == []


def test_a_manifest_error_names_line_model_and_key(project: Project) -> None:
    project.manifest("\n  - id: tiny\n    contexst: [512]")
    result = project.run("--lmstrix")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: models.yaml:4: model 'tiny': *contexst*contexts*"])


def test_the_command_line_overrides_the_ini_file(project: Project) -> None:
    project.pytester.makeini("[pytest]\nlmstrix_contexts = 2048\nlmstrix_registry = out/r.jsonl")
    project.run("--lmstrix").assert_outcomes(passed=1)
    assert (project.path / "out" / "r.jsonl").exists()
    assert project.ids("--lmstrix", "--lmstrix-ctx=300", "--all") == [
        "models.yaml::test_full[tiny-300]"
    ]


def test_the_short_all_option_is_left_to_another_plugin(project: Project) -> None:
    project.pytester.makepyfile(
        other='def pytest_addoption(parser): parser.addoption("--all", dest="theirs")'
    )
    result = project.run_apart("-p", "other", "--lmstrix", "--lmstrix-all", "--all=x")
    result.assert_outcomes(passed=2)


def test_help_lists_the_options(project: Project) -> None:
    shown = project.run("--help").stdout.str()
    for option in ("--lmstrix ", "--all ", "--lmstrix-all ", "--lmstrix-ctx=N[,N...]", "HOST"):
        assert option in shown


@pytest.mark.parametrize("plugin", ["html", "metadata", "xdist", "terminal"])
def test_other_plugins_can_be_disabled(project: Project, plugin: str) -> None:
    result = project.run("-p", f"no:{plugin}", "--lmstrix")
    assert result.ret == pytest.ExitCode.OK
    assert len(project.results) == 2
    html = plugin not in ("html", "metadata")
    assert (project.path / "reports" / "report.html").exists() == html
    left_out = [line for line in result.outlines if "report.html left out" in line]
    reason = f"lmstrix: report.html left out: the plugin pytest-{plugin} is off"
    assert left_out == ([] if html else [reason])


def test_an_ini_file_error_names_the_file_and_the_key(project: Project) -> None:
    project.pytester.makeini("[pytest]\nlmstrix_reply_timeout = abc")
    result = project.run("--lmstrix")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *tox.ini: lmstrix_reply_timeout: *abc*"])


@pytest.mark.parametrize("path", ["other/models.yaml", "other/models.yaml::test_full[a-512]"])
def test_another_manifest_as_an_argument_is_told_apart_from_that_of_the_run(
    project: Project, path: str
) -> None:
    (project.pytester.mkdir("other") / "models.yaml").write_text("models: [{id: a}]\n")
    remark = "lmstrix: other/models.yaml is not the manifest of this run: add"
    remark += " --lmstrix-models=other/models.yaml"
    result = project.run("--lmstrix", path)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {remark}" in result.errlines
    asleep = project.run(path)
    assert remark in asleep.outlines
    assert project.ids("--lmstrix", "--lmstrix-models=other/models.yaml", path.partition("::")[0])
