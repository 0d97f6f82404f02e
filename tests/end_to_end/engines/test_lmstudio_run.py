"""Whole runs with the unmodified SDK against the stand-in server."""

from __future__ import annotations

import sys

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project
from tests.sampling import few_of
from tests.standin.lmstudio import (
    Corrupted,
    Embedded,
    Fault,
    GrantsAtMost,
    LmStudioServer,
    MissingFromDisk,
    OutOfMemory,
    Reasons,
    Says,
    StandInModel,
    Unsupported,
    UserInstance,
)
from tests.standin.weights import smollm2

NINE = [f"model-{n}" for n in range(9)]


def manifest(project: Project, *models: str) -> None:
    entries = ", ".join(f"{{id: {each}, contexts: [512, 1024]}}" for each in models)
    project.pytester.makefile(".yaml", models=f"models: [{entries}]\n")


def run(project: Project, server: LmStudioServer, *args: str) -> pytest.RunResult:
    return project.run("--lmstrix", "--all", "--lmstrix-host", server.host, *args)


def test_ten_models_one_embedding_one_loaded_by_the_user(project: Project) -> None:
    models = [StandInModel(key=key) for key in NINE]
    models.append(StandInModel(key="vectors", type="embedding"))
    users = UserInstance(key="model-3")
    manifest(project, *NINE, "vectors")
    with LmStudioServer(models, loaded=[users]) as server:
        run(project, server).assert_outcomes(passed=18)
        assert server.loaded() == ("model-3",)
    assert server.violations == []
    ours = [change for change in server.changes if change.identifier.startswith("lmstrix-")]
    for loaded, unloaded in zip(ours[::2], ours[1::2], strict=True):
        assert (loaded.loaded, unloaded.loaded) == (True, False)
        assert loaded.identifier == unloaded.identifier
        assert unloaded.why == "unload"
    loads = server.named("loadModel")
    assert len(loads) == len(server.loads()) == 18
    assert all(call.ttl_ms for call in loads)
    used = {call.identifier for call in [*server.predictions(), *server.unloads()]}
    assert used == {call.identifier for call in loads}
    assert [r.verdict for r in project.results] == [Verdict.OK] * 18
    assert {r.host for r in project.results} == {server.host}


BROKEN = {
    "missing": (MissingFromDisk(), "xfailed", Verdict.MODEL_NOT_FOUND),
    "corrupted": (Corrupted(), "xfailed", Verdict.CORRUPTED),
    "unsupported": (Unsupported(), "xfailed", Verdict.UNSUPPORTED),
    "capped": (GrantsAtMost(tokens=300), "failed", Verdict.CONTEXT_NOT_GRANTED),
    "big": (OutOfMemory(above=300), "failed", Verdict.OUT_OF_MEMORY),
    "silent": (Says(text=""), "failed", Verdict.EMPTY_REPLY),
    "wrong": (Says(text="no idea"), "failed", Verdict.WRONG_ANSWER),
    "thinker": (Reasons(tokens=5000, in_completions=True), "failed", Verdict.NO_ANSWER_IN_BUDGET),
}


def test_broken_models_get_their_verdicts_and_the_run_goes_on(project: Project) -> None:
    models = [StandInModel(key=key, behaviours=(how,)) for key, (how, _, _) in BROKEN.items()]
    manifest(project, *BROKEN, "healthy")
    with LmStudioServer([*models, StandInModel(key="healthy", size_bytes=10**12)]) as server:
        run(project, server).assert_outcomes(passed=2, failed=10, xfailed=6)
        assert server.loaded() == ()
    assert server.violations == []
    found = {(r.model, r.outcome, r.verdict) for r in project.results}
    expected = {(key, outcome, verdict) for key, (_, outcome, verdict) in BROKEN.items()}
    assert found == expected | {("healthy", "passed", Verdict.OK)}
    for unusable in ("missing", "corrupted", "unsupported"):
        assert len([call for call in server.loads() if call.model_key == unusable]) == 1
        assert len([r for r in project.results if r.model == unusable]) == 2


def test_runxfail_turns_missing_models_into_failures(project: Project) -> None:
    manifest(project, "absent")
    with LmStudioServer() as server:
        run(project, server).assert_outcomes(xfailed=2)
        run(project, server, "--runxfail").assert_outcomes(failed=2)


def test_an_unreachable_host_is_one_error_and_then_skips(project: Project) -> None:
    manifest(project, "a", "b")
    with LmStudioServer([StandInModel(key="a"), StandInModel(key="b")]) as server:
        pass
    result = run(project, server, "-rs")
    result.assert_outcomes(errors=1, skipped=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert not (project.path / "reports" / "registry.jsonl").exists()


def test_models_run_on_the_host_that_has_them(project: Project) -> None:
    manifest(project, "a", "b", "both")
    with (
        LmStudioServer([StandInModel(key="a"), StandInModel(key="both")]) as one,
        LmStudioServer([StandInModel(key="b"), StandInModel(key="both")]) as two,
    ):
        run(project, one, "--lmstrix-host", two.host).assert_outcomes(passed=6)
    hosts = {(r.model, r.host) for r in project.results}
    assert hosts == {("a", one.host), ("b", two.host), ("both", one.host)}


def test_two_workers_use_two_hosts_without_duplicates(project: Project) -> None:
    manifest(project, *NINE)
    models = [StandInModel(key=key) for key in NINE]
    with LmStudioServer(models) as one, LmStudioServer(models) as two:
        args = ("--lmstrix", "--all", "-n", "2")
        hosts = ("--lmstrix-host", one.host, "--lmstrix-host", two.host)
        result = project.run_apart(*args, *hosts)
        result.assert_outcomes(passed=18)
        assert one.loaded() == two.loaded() == ()
        assert one.max_loaded_at_once("lmstrix") == two.max_loaded_at_once("lmstrix") == 1
    on = {model: {r.host for r in project.results if r.model == model} for model in NINE}
    assert all(len(hosts) == 1 for hosts in on.values())
    assert {host for hosts in on.values() for host in hosts} == {one.host, two.host}


def test_two_workers_on_one_host_load_one_model_at_a_time(project: Project) -> None:
    manifest(project, *NINE[:4])
    with LmStudioServer([StandInModel(key=key) for key in NINE]) as server:
        args = ("--lmstrix", "--all", "-n", "2", "--lmstrix-host", server.host)
        project.run_apart(*args).assert_outcomes(passed=8)
        assert server.max_loaded_at_once("lmstrix") == 1
        assert server.loaded() == ()
    assert len(project.results) == 8


KILLED = """
import os, signal, pytest

@pytest.mark.lmstrix(match="last", contexts=[1024])
def test_killed(lmstrix_model):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
@pytest.mark.parametrize("refusals", few_of([99, 0], 1), ids=["refused", ""])
def test_a_worker_that_dies_in_the_last_test_has_its_instance_swept_or_reported(
    project: Project, refusals: int
) -> None:
    project.pytester.makefile(".yaml", models="models: [{id: last, contexts: [512]}]\n")
    project.pytester.makepyfile(test_own=KILLED)
    fault = Fault(where="unloadModel", kind="error", skip=1, times=refusals)
    with (
        LmStudioServer() as first,  # the controller's own
        LmStudioServer([StandInModel(key="last")], faults=[fault]) as server,
    ):
        hosts = ("--lmstrix-host", first.host, "--lmstrix-host", server.host)
        result = project.run_apart("--lmstrix", "--all", "-n", "2", *hosts)
        left = server.loaded()
    result.assert_outcomes(passed=1, errors=1)
    (_, lost) = server.ever_loaded("lmstrix-")
    assert left == ((lost,) if refusals else ())
    notices = [line for line in result.outlines if line.startswith("lmstrix: LM Studio at")]
    assert [lost in line for line in notices] == [True for _ in left]


def test_without_a_worker_crash_no_sweep_is_made(project: Project) -> None:
    manifest(project, "a")
    with LmStudioServer([StandInModel(key="a")]) as server:
        args = ("--lmstrix", "--all", "-n", "2", "--lmstrix-host", server.host)
        project.run_apart(*args).assert_outcomes(passed=2)
        last = [call.endpoint for call in server.calls][-2:]
    assert last == ["unloadModel", "listLoaded"]


def test_the_sdk_runs_real_inference(project: Project) -> None:
    manifest(project, "smollm2")
    model = StandInModel(key="smollm2", behaviours=(Embedded(path=str(smollm2())),))
    with LmStudioServer([model]) as server:
        run(project, server).assert_outcomes(passed=2)
    assert server.violations == []
    assert any("96" in reply for r in project.results for reply in r.replies)
