"""Whole runs on several hosts: who tests what, and what a host that goes away costs."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import pytest

from tests.end_to_end.project import Project
from tests.standin.lmstudio import Fault, LmStudioServer, StandInModel


def manifest(project: Project, *models: str) -> None:
    entries = ", ".join(f"{{id: {each}, contexts: [512, 1024]}}" for each in models)
    project.pytester.makefile(".yaml", models=f"models: [{entries}]\n")


def on_hosts(servers: list[LmStudioServer]) -> list[str]:
    return [f"--lmstrix-host={server.host}" for server in servers]


def started(stack: ExitStack, *keys: list[str]) -> list[LmStudioServer]:
    """Start a server for each list of models."""
    return [
        stack.enter_context(LmStudioServer([StandInModel(key=key) for key in models]))
        for models in keys
    ]


def test_auto_starts_one_worker_a_host_and_models_go_where_they_are(project: Project) -> None:
    everywhere = ["a", "b", "c", "d"]
    manifest(project, *everywhere, "one", "two", "three")
    with ExitStack() as stack:
        servers = started(stack, [*everywhere, "one"], [*everywhere, "two"], [*everywhere, "three"])
        result = project.run_apart("--lmstrix", "-n", "auto", *on_hosts(servers))
        result.assert_outcomes(passed=14)
        assert all(server.max_loaded_at_once("lmstrix") == 1 for server in servers)
        assert all(server.loaded() == () for server in servers)
    result.stdout.fnmatch_lines(["*3 workers*"])
    hosts = {r.model: r.host for r in project.results}
    assert [hosts[each] for each in ("one", "two", "three")] == [each.host for each in servers]
    assert len(project.results) == 14


def test_hosts_of_the_manifest_are_used_by_name_and_given_ones_win(project: Project) -> None:
    models = "models: [{id: a, contexts: [512]}, {id: b, contexts: [512]}]\n"
    with ExitStack() as stack:
        servers = started(stack, ["a", "b"], ["a", "b"], ["a"])
        entries = "".join(
            f"  - {{name: {name}, url: '{server.host}'}}\n"
            for name, server in zip(("den", "attic"), servers, strict=False)
        )
        project.pytester.makefile(".yaml", models=f"hosts:\n{entries}{models}")
        project.run_apart("--lmstrix", "-n", "auto").assert_outcomes(passed=2)
        assert {r.host for r in project.results} == {"den", "attic"}
        args = ("--lmstrix", "--lmstrix-all", "--lmstrix-host", "attic")
        project.run(*args).assert_outcomes(passed=2)
        assert [r.host for r in project.results[2:]] == ["attic", "attic"]
        result = project.run(*args, "--lmstrix-host", servers[2].host, "-k", "a-512")
        result.assert_outcomes(passed=1)
        assert len(servers[1].loads()) == 1 + 2 + 1
    misspelt = project.run("--lmstrix", "--lmstrix-host=atic")
    misspelt.stderr.fnmatch_lines(["ERROR: --lmstrix-host: 'atic' is not *; did you mean 'attic'?"])


def test_workers_without_a_host_are_told_and_not_left_waiting(project: Project) -> None:
    manifest(project, "a", "b", "c")
    with ExitStack() as stack:
        servers = started(stack, ["a", "b", "c"])
        result = project.run_apart("--lmstrix", "-n", "3", *on_hosts(servers))
        result.assert_outcomes(passed=6)
        assert servers[0].max_loaded_at_once("lmstrix") == 1
    line = "lmstrix: 2 workers without a host, since a host has one model at a time;*"
    result.stdout.fnmatch_lines([line])
    result.stdout.no_fnmatch_line("*waiting for*")


@pytest.mark.parametrize("workers", ["2", "3"])
def test_fewer_workers_than_hosts_share_them_out(project: Project, workers: str) -> None:
    names = ["a", "b", "c", "d"]
    manifest(project, *names)
    with ExitStack() as stack:
        servers = started(stack, *([each] for each in names))
        result = project.run_apart("--lmstrix", "-n", workers, *on_hosts(servers))
        result.assert_outcomes(passed=8)
        hosts = {r.model: r.host for r in project.results}
        assert hosts == {name: server.host for name, server in zip(names, servers, strict=True)}


def test_the_models_of_a_host_that_dies_are_tested_by_the_others(project: Project) -> None:
    names = [f"m{n}" for n in range(6)]
    manifest(project, *names)
    with ExitStack() as stack:
        (good,) = started(stack, names)
        dying = LmStudioServer(
            [StandInModel(key=key) for key in names],
            faults=[Fault(where="load", kind="gone", skip=1)],
        )
        stack.enter_context(dying)
        result = project.run_apart("--lmstrix", "-n", "2", *on_hosts([good, dying]))
        result.assert_outcomes(passed=11, errors=1)
        assert good.max_loaded_at_once("lmstrix") == 1
    assert {r.verdict.value for r in project.results} == {"ok"}
    by_host = Counter(r.host for r in project.results)
    assert by_host == {dying.host: 1, good.host: 10}
    assert len({(r.model, r.context_length) for r in project.results}) == 11
