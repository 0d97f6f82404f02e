"""Faults of the whole server: unloads, short calls, restarts, an unreachable host."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_lmstrix.checks import loader
from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.faults.conftest import (
    TIERS,
    USERS,
    assert_only_ours_were_touched,
    ours,
    run,
    stand_in,
    verdicts,
)
from tests.end_to_end.project import Project
from tests.sampling import few_of
from tests.standin.lmstudio import (
    Fault,
    LmStudioServer,
    ServerError,
    StandInModel,
    UserInstance,
)
from tests.standin.lmstudio.errors import no_matching_model

MODELS = ["one", "two", "three"]
OK, RETRIED = (Verdict.OK, False), (Verdict.OK, True)
REFUSED = ServerError(title="No.")
NOT_FOUND = no_matching_model({}, ())


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("kind", ["error", "hang", "close_socket", "garbage", "restart"])
@pytest.mark.parametrize("where", few_of(["getModelInfo", "listLoaded", "getLoadConfig"], 1))
def test_a_short_call_that_fails_once_is_retried(
    project: Project, where: Any, kind: Any, tier: str
) -> None:
    fault = Fault(where=where, kind=kind, skip=1, error=REFUSED)
    with stand_in(MODELS, faults=[fault]) as server:
        run(project, server, MODELS, tier)
        assert server.faults_left() == ()
        assert ours(server) == []
    assert_only_ours_were_touched(server)
    found = verdicts(project.results)
    assert len(found) == len(MODELS)
    assert set(found.values()) <= {OK, RETRIED}


@pytest.mark.parametrize("kind", ["error", "hang", "close_socket"])
def test_a_count_of_tokens_that_fails_once_is_retried(project: Project, kind: Any) -> None:
    fault = Fault(where="countTokens", kind=kind, skip=1, error=REFUSED)
    with stand_in(["one"], faults=[fault]) as server:
        run(project, server, ["one"], "deep", contexts=(1024,))
        assert server.faults_left() == ()
        assert ours(server) == []
    assert set(verdicts(project.results).values()) <= {OK, RETRIED}


UNLOADS: dict[str, dict[str, Any]] = {
    "refused": {"kind": "error", "error": REFUSED},
    "not found": {"kind": "error", "error": NOT_FOUND},
    "ignored": {"kind": "ignore"},
    "unanswered": {"kind": "close_channel"},
    "lost": {"kind": "close_socket"},
    "garbage": {"kind": "garbage"},
    "restart": {"kind": "restart"},
}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("how", few_of(UNLOADS, 2))
def test_an_unload_that_fails_once_is_retried(project: Project, how: str, tier: str) -> None:
    fault = Fault(where="unloadModel", **UNLOADS[how])
    with stand_in(MODELS, faults=[fault]) as server:
        run(project, server, MODELS, tier).assert_outcomes(passed=3)
        assert server.faults_left() == ()
        assert ours(server) == []
    assert_only_ours_were_touched(server)
    assert verdicts(project.results) == dict.fromkeys(MODELS, OK)


@pytest.mark.parametrize("how", ["refused", "ignored"])
def test_a_leaked_instance_is_reported_immediately_and_at_the_end(
    project: Project, how: str
) -> None:
    fault = Fault(where="unloadModel", times=99, **UNLOADS[how])
    with stand_in(MODELS, faults=[fault]) as server:
        result = run(project, server, MODELS, "fast")
        assert len(ours(server)) == 3
        for identifier in ours(server):
            result.stdout.fnmatch_lines([f"lmstrix: LM Studio at * {identifier};*"])
    result.assert_outcomes(passed=3, errors=3)
    result.stdout.fnmatch_lines(["*one may still be in memory: *"])
    assert verdicts(project.results) == dict.fromkeys(MODELS, OK)


@pytest.mark.parametrize("tier", TIERS)
def test_out_of_memory_after_a_leak_is_not_the_next_models_fault(
    project: Project, tier: str
) -> None:
    fault = Fault(where="unloadModel", kind="error", error=REFUSED, times=99)
    # At sizes where a failure starts a search.
    models = "[{id: one, contexts: [512], context_limit: 9000, size_bytes: 1},"
    models += " {id: two, contexts: [5000, 8000], context_limit: 90000, size_bytes: 2}]"
    project.pytester.makefile(".yaml", models=f"models: {models}\n")
    with stand_in(["one", "two"], faults=[fault], memory_bytes=3_600_000_000) as server:
        args = ("--lmstrix", "--all", "-m", tier, "--lmstrix-host", server.host)
        result = project.run(*args)
        assert {int(call.context_length or 0) for call in server.loads()} == {512, 5000}
    result.assert_outcomes(passed=1, errors=2, skipped=1)  # the unload of `one`, and `two`
    assert verdicts(project.results) == {"one": OK, "two": (Verdict.HOST_TROUBLE, True)}
    result.stdout.fnmatch_lines(["*still in memory of *: *lmstrix-*does not count against two*"])


def test_memory_used_by_another_process_is_not_the_models_fault(project: Project) -> None:
    left = UserInstance(key="one", identifier="lmstrix-other-0")
    models = [StandInModel(key=key, size_bytes=2 * 10**9) for key in ("one", "two")]
    with LmStudioServer(models, loaded=[left], memory_bytes=2_500_000_000) as server:
        result = run(project, server, ["two"], "fast")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*still in memory of *: lmstrix-other-0 (2.00 GB)*does not count against two*"]
    )


def test_a_guardrail_without_a_leak_fails_the_model(project: Project) -> None:
    models = [StandInModel(key="one", size_bytes=2 * 10**9)]
    with LmStudioServer(models, memory_bytes=10**9) as server:
        run(project, server, ["one"], "fast")
    assert verdicts(project.results) == {"one": (Verdict.GUARDRAIL_REFUSED, False)}


def test_memory_that_a_user_takes_is_not_the_models_fault(project: Project) -> None:
    models = [StandInModel(key="one", size_bytes=2 * 10**9), StandInModel(key="users")]
    with LmStudioServer(models, loaded=[USERS], memory_bytes=2_500_000_000) as server:
        result = run(project, server, ["one"], "full", contexts=(512, 1024))
        assert {int(call.context_length or 0) for call in server.loads()} == {512}
    result.assert_outcomes(errors=1, skipped=1)
    result.stdout.fnmatch_lines(["*in memory of *: users (*GB); unload them there*"])
    assert verdicts(project.results) == {"one": (Verdict.HOST_TROUBLE, True)}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    "where", few_of(["load_progress", "fragment", "load", "predict", "prefill"], 2)
)
def test_a_run_continues_after_a_server_restart(project: Project, where: Any, tier: str) -> None:
    with stand_in(MODELS, faults=[Fault(where=where, kind="restart", model="two")]) as server:
        result = run(project, server, MODELS, tier)
        result.assert_outcomes(passed=3)
        assert ours(server) == []
    assert_only_ours_were_touched(server)
    assert verdicts(project.results) == {"one": OK, "two": RETRIED, "three": OK}
    assert "passed on another try, after" in project.results[1].detail
    result.stdout.fnmatch_lines(["one * ok *", "two * ok, retried *", "three * ok *"])
    summary = (project.path / "reports" / "summary.md").read_text(encoding="utf-8")
    assert summary.count("`ok, retried`") == 1


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    "where", few_of(["load_progress", "fragment", "load", "predict", "prefill"], 2)
)
def test_a_server_that_goes_away_is_unreachable(project: Project, where: Any, tier: str) -> None:
    with stand_in(MODELS, faults=[Fault(where=where, kind="gone", model="two")]) as server:
        result = run(project, server, MODELS, tier, "-rs")
        result.assert_outcomes(passed=1, errors=1, skipped=1)
        if where in ("predict", "prefill", "fragment"):
            (_, lost) = server.ever_loaded("lmstrix-")
            result.stdout.fnmatch_lines([f"lmstrix: LM Studio at * {lost};*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert verdicts(project.results) == {"one": OK}


def test_a_run_continues_when_the_server_is_back_within_seconds(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "RECONNECT_PAUSES", (0.0, 1.0, 3.0))
    pauses: list[float] = []
    with stand_in(MODELS, faults=[Fault(where="predict", kind="gone", model="two")]) as server:

        def pause(seconds: float) -> None:
            if seconds >= 1.0:
                pauses.append(seconds)
                if seconds == 3.0:
                    server.come_back()

        monkeypatch.setattr(loader.time, "sleep", pause)
        result = run(project, server, MODELS, "full", "--color=no")
        assert ours(server) == []
    result.assert_outcomes(passed=3)
    assert pauses == [1.0, 3.0]
    assert verdicts(project.results) == {"one": OK, "two": RETRIED, "three": OK}


def test_a_frozen_server_is_not_retried_for_every_model(project: Project) -> None:
    models = [f"model-{n}" for n in range(20)]
    with stand_in(models) as server:
        server.freeze()
        result = run(project, server, models, "fast")
        server.thaw()
    result.assert_outcomes(errors=1, skipped=19)
    assert len(server.calls) <= 12
    assert not (project.path / "reports" / "registry.jsonl").exists()


def test_models_on_other_hosts_still_run(project: Project) -> None:
    with (
        stand_in(["a"], faults=[Fault(where="predict", kind="gone")]) as one,
        stand_in(["b"]) as two,
    ):
        result = run(project, one, ["a", "b"], "full", "--lmstrix-host", two.host)
        result.assert_outcomes(passed=1, errors=1)
        assert ours(two) == []


def test_a_lock_that_cannot_be_created_is_an_error_without_verdict(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project.path / "locks"
    folder.touch()
    monkeypatch.setenv("PYTEST_LMSTRIX_LOCKS", str(folder))
    with stand_in(MODELS) as server:
        result = run(project, server, MODELS, "full")
    result.assert_outcomes(errors=1, skipped=2)
    result.stdout.fnmatch_lines(["*cannot be locked: *locks*"])
    assert server.loads() == []
