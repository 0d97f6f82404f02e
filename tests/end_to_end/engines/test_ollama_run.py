"""Whole runs against the stand-in Ollama."""

from __future__ import annotations

import os
import sys

import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project
from tests.standin.lmstudio import (
    Corrupted,
    GrantsAtMost,
    MissingFromDisk,
    OutOfMemory,
    Reasons,
    StandInModel,
    Unsupported,
)
from tests.standin.ollama import OllamaServer, Quirks

TINY = StandInModel(key="tiny:latest")


def manifest(project: Project, *models: str) -> None:
    entries = ", ".join(f"{{id: {each!r}, contexts: [512, 1024]}}" for each in models)
    project.pytester.makefile(
        ".yaml", models=f"defaults: {{engine: ollama}}\nmodels: [{entries}]\n"
    )


def run(project: Project, server: OllamaServer, *args: str) -> pytest.RunResult:
    return project.run("--lmstrix-host", server.host, *args)


@pytest.mark.parametrize("check", ["full", "deep"])
def test_every_size_passes_and_is_unloaded(project: Project, check: str) -> None:
    manifest(project, "tiny:latest")
    with OllamaServer([TINY]) as server:
        run(project, server, "--lmstrix", "--all", "-m", check).assert_outcomes(passed=2)
        assert server.loaded == {}
    assert {(r.engine, r.host, r.verdict) for r in project.results} == {
        ("ollama", server.address, Verdict.OK)
    }
    sizes = {body["options"]["num_ctx"] for _, body in server.requests if "options" in body}
    assert sizes <= {512, 1024}
    assert all("gpu: all of it" in r.notes for r in project.results)


def test_limit_finds_the_largest_context_that_is_granted(project: Project) -> None:
    project.pytester.makefile(
        ".yaml", models="models: [{id: capped, engine: ollama, contexts: [16384]}]\n"
    )
    model = StandInModel(key="capped", max_context_length=32_768,
                         behaviours=(OutOfMemory(above=9_000),))  # fmt: skip
    with OllamaServer([model]) as server:
        run(project, server, "--lmstrix", "-m", "limit").assert_outcomes(passed=1)
        assert server.loaded == {}
    passed = [r.context_length for r in project.results if r.verdict is Verdict.OK]
    assert 8_000 < max(passed) <= 9_000


BROKEN = {
    "missing": (MissingFromDisk(), "xfailed", Verdict.MODEL_NOT_FOUND),
    "corrupted": (Corrupted(at="load"), "xfailed", Verdict.CORRUPTED),
    "unsupported": (Unsupported(), "xfailed", Verdict.UNSUPPORTED),
    "capped": (GrantsAtMost(tokens=300), "failed", Verdict.CONTEXT_NOT_GRANTED),
    "big": (OutOfMemory(above=300), "failed", Verdict.OUT_OF_MEMORY),
}


def test_broken_models_get_their_verdicts_and_the_run_goes_on(project: Project) -> None:
    models = [StandInModel(key=key, behaviours=(how,)) for key, (how, _, _) in BROKEN.items()]
    manifest(project, *BROKEN, "tiny")
    with OllamaServer([*models, TINY]) as server:
        run(project, server, "--lmstrix", "--all").assert_outcomes(passed=2, failed=4, xfailed=6)
        assert server.loaded == {}
    found = {(r.model, r.outcome, r.verdict) for r in project.results}
    expected = {(key, outcome, verdict) for key, (_, outcome, verdict) in BROKEN.items()}
    assert found == expected | {("tiny", "passed", Verdict.OK)}


def test_a_model_that_another_client_has_loaded_is_left_alone(project: Project) -> None:
    manifest(project, "tiny", "theirs")
    with OllamaServer([TINY, StandInModel(key="theirs")]) as server:
        server.use("theirs", 2048)
        result = run(project, server, "--lmstrix", "--all")
        assert server.loaded == {"theirs:latest": 2048}
        assert [each for each in server.events if "theirs" in each] == ["load theirs:latest 2048"]
    result.assert_outcomes(passed=2, errors=1, skipped=1)
    result.stdout.fnmatch_lines(
        [f"*another client has theirs:latest loaded in Ollama at {server.address}*"]
    )
    assert {r.verdict for r in project.results if r.model == "theirs"} == {Verdict.HOST_TROUBLE}


KILLED = """
import os, signal, pytest

@pytest.mark.lmstrix(match="tiny", contexts=[1024])
def test_killed(lmstrix_model):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_what_a_killed_run_has_loaded_is_unloaded_by_the_next(project: Project) -> None:
    manifest(project, "tiny")
    own = project.pytester.makepyfile(test_own=KILLED)
    with OllamaServer([TINY]) as server:
        host = ("--lmstrix-host", server.host)
        project.run_apart("--lmstrix", str(own), *host)
        assert server.loaded == {"tiny:latest": 1024}
        own.unlink()
        run(project, server, "--lmstrix", "--all").assert_outcomes(passed=2)
        assert server.loaded == {}


def test_the_scan_lists_ollama_where_it_runs(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.path / "models.yaml").unlink()
    vectors = StandInModel(key="vectors", type="embedding")
    with OllamaServer([TINY, vectors], Quirks(release=(0, 9, 0))) as server:
        monkeypatch.setitem(os.environ, "OLLAMA_HOST", server.address)
        result = project.run("--lmstrix-scan")
    result.stdout.fnmatch_lines([f"ollama {server.address} * 2 models"])
    written = (project.path / "models.yaml").read_text(encoding="utf-8")
    assert "tiny:latest" in written
    assert "engine: ollama" in written


def test_the_scan_passes_over_an_ollama_that_does_not_run(project: Project) -> None:
    assert "ollama" not in project.run("--lmstrix-scan").stdout.str()


def test_a_host_that_is_not_an_address_is_an_error(project: Project) -> None:
    result = project.run("--lmstrix", "--lmstrix-host", "ollama://")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'ollama://' is not ollama://host:port, such as *"])


def test_half_of_the_context_is_not_granted(project: Project) -> None:
    manifest(project, "tiny")
    with OllamaServer([TINY], Quirks(grants_half=True)) as server:
        run(project, server, "--lmstrix", "--all", "-m", "full").assert_outcomes(failed=2)
        assert server.loaded == {}
    found = {(r.context_length, r.granted_context_length, r.verdict) for r in project.results
             if r.origin == "case"}  # fmt: skip
    assert found == {(size, size // 2, Verdict.CONTEXT_NOT_GRANTED) for size in (512, 1024)}


@pytest.mark.parametrize("release", [(0, 12, 0), (0, 30, 11)], ids=["cut", "cut to half"])
def test_deep_finds_a_context_that_is_smaller_than_reported(
    project: Project, release: tuple[int, int, int]
) -> None:
    manifest(project, "tiny")
    quirks = Quirks(release=release, grants_half=True, reports_asked=True)
    with OllamaServer([TINY], quirks) as server:
        run(project, server, "--lmstrix", "--all", "-m", "deep").assert_outcomes(passed=1, failed=1)
    # The size that passes is tested in the load of the other, which has just as much.
    (bad,) = (r for r in project.results if r.verdict is not Verdict.OK and r.origin == "case")
    cut = {Verdict.PROMPT_TRUNCATED, Verdict.CONTEXT_TOO_LARGE}
    assert bad.context_length == 1024
    assert bad.verdict in cut


def test_a_share_on_the_cpu_is_recorded_and_noted(project: Project) -> None:
    manifest(project, "tiny")
    with OllamaServer([TINY], Quirks(vram_share=0.25)) as server:
        run(project, server, "--lmstrix", "--all", "-m", "fast").assert_outcomes(passed=2)
    assert all(any(n.startswith("gpu: 25% of it") for n in r.notes) for r in project.results)


def test_two_hosts_of_ollama_work_at_the_same_time(project: Project) -> None:
    manifest(project, "one", "two")
    models = [StandInModel(key="one"), StandInModel(key="two")]
    with OllamaServer(models) as here, OllamaServer(models) as there:
        hosts = ("--lmstrix-host", here.host, "--lmstrix-host", f"ollama+http://{there.address}")
        project.run("--lmstrix", "--all", "-m", "fast", "-n", "2", *hosts).assert_outcomes(passed=4)
        assert here.loaded == there.loaded == {}
    assert {r.host for r in project.results} == {here.address, there.address}
    listed = project.run("--lmstrix-list").stdout
    listed.fnmatch_lines(["one * works *", "two * works *"])


@pytest.mark.parametrize("release", [(0, 33, 0), (0, 9, 0)], ids=["listed", "shown"])
def test_the_scan_records_capabilities(project: Project, release: tuple[int, int, int]) -> None:
    (project.path / "models.yaml").unlink()
    thinker = StandInModel(key="thinker", trained_for_tool_use=True, behaviours=(Reasons(),))
    with OllamaServer([thinker], Quirks(release=release)) as server:
        run(project, server, "--lmstrix-scan")
    written = (project.path / "models.yaml").read_text(encoding="utf-8")
    assert "capabilities: [tools, thinking]" in written


def test_models_that_others_use_keep_no_free_model_from_its_test(project: Project) -> None:
    names = ("a:latest", "b:latest", "c:latest", "d:latest", "free:latest")
    manifest(project, *names)
    with OllamaServer([StandInModel(key=name) for name in names], Quirks(max_loaded=5)) as server:
        for name in names[:4]:
            server.use(name.partition(":")[0], 4096)
        result = run(project, server, "--lmstrix", "--all")
        assert sorted(server.loaded) == sorted(names[:4])
    result.assert_outcomes(passed=2, errors=4, skipped=4)
    verdicts = {r.model: r.verdict for r in project.results}
    assert verdicts == dict.fromkeys(names, Verdict.HOST_TROUBLE) | {"free:latest": Verdict.OK}
    result.stdout.no_fnmatch_line("*same words*")
    result.stdout.fnmatch_lines(["Unload it there, or run again when it is free*"])
