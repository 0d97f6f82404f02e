"""Whole runs of models on OpenAI-compatible servers."""

from __future__ import annotations

import base64

import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project
from tests.standin.lmstudio import StandInModel
from tests.standin.openai import Dialect, Faults, OpenAiServer

KEY = "sk-test-5f0c2b7e91"
VARIABLE = "TINY_SERVER_KEY"
CONTEXT = 1024
TINY = StandInModel(key="tiny")


def manifest(project: Project, contexts: str = "[512, 1024]", **keys: str) -> None:
    given = "".join(f", {key}: {value!r}" for key, value in keys.items())
    project.pytester.makefile(
        ".yaml", models=f"models: [{{id: tiny, engine: openai, contexts: {contexts}{given}}}]\n"
    )


def written(project: Project) -> bytes:
    """Return all that a run has left in the project's folder."""
    files = [path for path in project.path.rglob("*") if path.is_file()]
    return b"".join(path.read_bytes() for path in files)


@pytest.mark.parametrize("check", ["fast", "full", "deep"])
def test_every_size_that_the_server_has_passes(project: Project, check: str) -> None:
    with OpenAiServer(TINY, CONTEXT) as server:
        manifest(project, url=f"{server.url}/v1")
        result = project.run("--lmstrix", "--all", "-m", check)
    result.assert_outcomes(passed=2)
    assert {(r.engine, r.host, r.engine_version) for r in project.results} == {
        ("openai", server.address, "0.11.2")
    }
    assert {(r.granted_context_length, r.verdict) for r in project.results} == {
        (CONTEXT, Verdict.OK)
    }


def test_a_larger_context_is_refused_without_a_request(project: Project) -> None:
    with OpenAiServer(TINY, CONTEXT) as server:
        manifest(project, "[2048, 4096]", url=server.url)
        project.run("--lmstrix", "--all", "-m", "full").assert_outcomes(failed=2)
        assert server.asked == []
        assert {path for path, _ in server.requests} <= {"/v1/models", "/version"}
    assert {r.verdict for r in project.results} == {Verdict.CONTEXT_NOT_GRANTED}


def test_limit_is_the_context_of_the_server(project: Project) -> None:
    with OpenAiServer(TINY, CONTEXT, Dialect.LLAMACPP) as server:
        manifest(project, "[4096]", url=server.url)
        project.run("--lmstrix", "-m", "limit").assert_outcomes(passed=1)
    passed = [r.context_length for r in project.results if r.verdict is Verdict.OK]
    assert max(passed) == CONTEXT


def test_a_host_is_named_by_an_option(project: Project) -> None:
    with OpenAiServer(TINY, CONTEXT) as server:
        manifest(project)
        project.run("--lmstrix", "--all", "--lmstrix-host", server.host).assert_outcomes(passed=2)


def test_models_of_two_servers_go_to_their_own(project: Project) -> None:
    other = StandInModel(key="other")
    with OpenAiServer(TINY, CONTEXT) as one, OpenAiServer(other, CONTEXT) as two:
        entries = "".join(
            f"  - {{id: {each.model.key}, engine: openai, contexts: [512], url: '{each.url}'}}\n"
            for each in (one, two)
        )
        project.pytester.makefile(".yaml", models=f"models:\n{entries}")
        project.run("--lmstrix", "--all", "-m", "fast").assert_outcomes(passed=2)
    assert {(r.model, r.host) for r in project.results} == {
        ("tiny", one.address),
        ("other", two.address),
    }


def test_an_answer_that_is_cut_is_asked_for_again(project: Project) -> None:
    with OpenAiServer(TINY, CONTEXT, faults=Faults(cut=1)) as server:
        manifest(project, "[512]", url=server.url)
        project.run("--lmstrix", "--all", "-m", "fast").assert_outcomes(passed=1)
    (result,) = project.results
    assert (result.verdict, result.retried) == (Verdict.OK, True)


def test_a_server_that_is_gone_does_not_count_against_the_model(project: Project) -> None:
    with OpenAiServer(TINY, CONTEXT) as server:
        pass
    manifest(project, "[512]", url=server.url)
    result = project.run("--lmstrix", "--all", "-m", "fast")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["unreachable: *is not reachable*", "lmstrix: no model was judged*"]
    )


OUTPUTS = {"report.html", "registry.jsonl", "run.json", "summary.md", "junit.xml", "debug.log"}
COMMANDS = ("list", "scan", "health", "history", "fit", "export=litellm")


@pytest.mark.parametrize("given", [KEY, "sk-wrong-key-of-mine"])
def test_no_output_holds_the_key(
    project: Project, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv(VARIABLE, given)
    faults = Faults(echoes_key=True)
    more = ("--junitxml=junit.xml", "--log-file=debug.log", "--log-file-level=DEBUG")
    with OpenAiServer(TINY, CONTEXT, faults=faults, api_key=KEY) as server:
        manifest(project, "[512]", url=server.url, api_key_env=VARIABLE)
        args = ("--lmstrix", "--all", "-m", "full", "-vv", "--showlocals", "-rA", "-s")
        results = [project.run(*args, *more)]
        assert f"Bearer {given}" in server.keys
        results += [project.run(f"--lmstrix-{each}") for each in COMMANDS]
    shown = "".join(str(result.stdout) + str(result.stderr) for result in results)
    written_names = {path.name for path in project.path.rglob("*")}
    assert OUTPUTS - written_names == (set() if given == KEY else {"registry.jsonl"})
    assert shown.count("tiny") > len(COMMANDS)
    for form in (given, base64.b64encode(given.encode()).decode(), given[3:]):
        assert form not in shown
        assert form.encode() not in written(project)
    assert bool(given == KEY) != (f"the environment variable {VARIABLE} (401)" in shown)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"url": "ftp://host"}, "*url must be the URL of a server*"),
        ({"url": "http://me:secret@host"}, "*url must not hold a password*"),
        ({"api_key_env": "sk-live-1234"}, "*api_key_env must be the name of an environment var*"),
    ],
)
def test_a_mistake_in_the_manifest_is_named(
    project: Project, keys: dict[str, str], words: str
) -> None:
    manifest(project, **keys)
    result = project.run("--lmstrix", "--all")
    result.stderr.fnmatch_lines([words])
    shown = str(result.stdout) + str(result.stderr)
    assert "sk-live" not in shown
    assert "secret" not in shown


def test_other_engines_have_no_servers_to_name(project: Project) -> None:
    project.pytester.makefile(
        ".yaml", models="models: [{id: tiny, engine: ollama, url: 'http://127.0.0.1:8000'}]\n"
    )
    result = project.run("--lmstrix", "--all")
    result.stderr.fnmatch_lines(["*url is a key of engine openai, not of ollama*"])


def test_a_scan_lists_the_models_of_a_named_host(project: Project) -> None:
    with OpenAiServer(TINY, CONTEXT) as server:
        (project.path / "models.yaml").unlink()
        project.run("--lmstrix-scan", "--lmstrix-host", server.host)
    text = (project.path / "models.yaml").read_text(encoding="utf-8")
    assert "id: tiny" in text
    assert "engine: openai" in text
    assert "url:" not in text


def test_a_scan_does_not_miss_models_of_servers_that_it_does_not_ask(project: Project) -> None:
    manifest(project, url="http://127.0.0.1:9")
    result = project.run("--lmstrix-scan")
    result.stdout.no_fnmatch_line("*openai*")
