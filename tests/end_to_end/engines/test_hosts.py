"""Whole runs on several hosts: who tests what, and what a host that goes away costs."""

from __future__ import annotations

import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.end_to_end.project import Project
from tests.sampling import few_of
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


@pytest.mark.parametrize("workers", few_of(["2", "3"], 1))
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


def test_models_go_where_they_fit_and_where_they_ask_to(project: Project) -> None:
    names = ["any", "wants-gpu", "heavy", "giant", "long", "orphan"]
    with ExitStack() as stack:
        small, big = servers = started(stack, names, names)
        project.pytester.makefile(
            ".yaml",
            models=f"""
hosts:
  - {{name: small, url: '{small.host}', tags: [old], memory: 4GB}}
  - {{name: big, url: '{big.host}', tags: [gpu], memory: 16GB}}
  - {{name: other, url: 'ollama://127.0.0.1:1', tags: [away]}}
defaults: {{contexts: [512, 1024]}}
models:
  - {{id: any, size_bytes: 1000}}
  - {{id: wants-gpu, hosts: [gpu, old], size_bytes: 5_000_000_000}}
  - {{id: heavy, size_bytes: 9_000_000_000}}
  - {{id: giant, size_bytes: 99_000_000_000}}
  - {{id: long, hosts: [small], size_bytes: 1000}}
  - {{id: orphan, hosts: [away]}}
""",
        )
        result = project.run_apart("--lmstrix", "-n", "auto", "-rs", "--junit-xml=out.xml")
        result.assert_outcomes(passed=8, skipped=4)
        assert all(server.max_loaded_at_once("lmstrix") == 1 for server in servers)
    result.stdout.fnmatch_lines_random([
        "*2 workers*",
        "SKIPPED*2*: does not fit: needs at least 99.0 GB at 512 tokens; small has 4.0 GB, big has"
        " 16.0 GB",
        "SKIPPED*2*: asks for a host that is or has away; the hosts of engine lmstudio in this run:"
        " small, big",
        "model * host *",
        "heavy * big *",
    ])  # fmt: skip
    hosts = {r.model: r.host for r in project.results}
    assert (hosts["wants-gpu"], hosts["heavy"], hosts["long"]) == ("big", "big", "small")
    assert "giant" not in hosts
    junit = (project.path / "out.xml").read_text(encoding="utf-8")
    assert 'name="lmstrix_host" value="big"' in junit
    listed = project.run("--lmstrix-list", "--lmstrix-format=md").outlines
    assert any(line.startswith("| heavy | lmstudio | big |") for line in listed)
    summary = (project.path / "reports" / "summary.md").read_text(encoding="utf-8")
    assert "| heavy | big |" in summary
    page = (project.path / "reports" / "report.html").read_text(encoding="utf-8")
    assert "full: ok on big" in page
    assert re.findall("<option>(.*?)</option>", page) == ["big", "small"]
    assert "this machine" not in page


def test_each_slot_of_a_host_has_one_model_and_large_ones_take_several(project: Project) -> None:
    # The guardrail of the server refuses what is too much at once.
    sizes = {"heavy1": 13, "heavy2": 13, "small1": 2, "small2": 2}
    models = [StandInModel(key=key, size_bytes=size * 10**9) for key, size in sizes.items()]
    held = Fault(where="load", kind="hang", model="small", times=2)
    entries = ", ".join(
        f"{{id: {key}, contexts: [512], size_bytes: {size}_000_000_000}}"
        for key, size in sizes.items()
    )
    with (
        LmStudioServer(models, faults=[held], memory_bytes=24 * 10**9) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        host = f"{{name: den, url: '{server.host}', slots: 2, memory: 24GB}}"
        project.pytester.makefile(".yaml", models=f"hosts: [{host}]\nmodels: [{entries}]\n")

        def release_both() -> None:
            server.wait_for(lambda: len(server.pending("loadModel")) == 2, 120)
            server.release()

        # The small ones alone: a large one would wait for the slot of a load that is held.
        both = pool.submit(release_both)
        project.run_apart("--lmstrix", "-n", "auto", "-k", "small").assert_outcomes(passed=2)
        both.result()
        assert server.max_loaded_at_once("lmstrix") == 2
        result = project.run_apart("--lmstrix", "--all", "-n", "auto")
        result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*2 workers*"])
    assert {r.host for r in project.results} == {"den"}


NO_PATIENCE = """
from pathlib import Path

from pytest_lmstrix.checks import loader

loader.RECONNECT_PAUSES = (0.0,)
loader.RETURN_SECONDS = 0.3


def pytest_runtest_logreport(report):
    if "unreachable" in str(report.longrepr):
        Path(__file__).with_name("died").touch()
"""


def run_with_a_host_that_comes_back(
    project: Project,
    stack: ExitStack,
    names: list[str],
    others: list[LmStudioServer],
    hangs_at: int,
) -> tuple[pytest.RunResult, list[LmStudioServer]]:
    """Run on `others` and a host that dies at its second load, and is back before they end.

    The first of `others` hangs at a load until it is used again. All servers are returned, the
    one that was back at the end.
    """
    models = [StandInModel(key=key) for key in names]
    dying = LmStudioServer(models, faults=[Fault(where="load", kind="gone", skip=1)])
    stack.enter_context(dying)
    manifest(project, *names)
    project.pytester.makeconftest(NO_PATIENCE)
    returned = LmStudioServer(models, port=dying.port)

    def bring_back() -> None:
        try:
            others[0].wait_for(lambda: len(others[0].loads()) == hangs_at, 200)
            deadline = time.monotonic() + 200
            while not (project.path / "died").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            dying.stop()
            stack.enter_context(returned)
            returned.wait_for(lambda: bool(returned.loads()), 200)
        finally:
            others[0].release()

    with ThreadPoolExecutor(1) as pool:
        back = pool.submit(bring_back)
        result = project.run_apart("--lmstrix", "-n", "auto", *on_hosts([*others, dying]))
        back.result()
    return result, [*others, dying, returned]


def check_that_models_were_tested_once(
    project: Project, result: pytest.RunResult, servers: list[LmStudioServer], models: int
) -> None:
    """Check that none was on two hosts, but the one that was being tested when its host died."""
    result.assert_outcomes(passed=2 * models - 1, errors=1)
    assert all(server.max_loaded_at_once("lmstrix") <= 1 for server in servers)
    assert servers[-1].loads(), "it is used again"
    assert {r.verdict.value for r in project.results} == {"ok"}
    tested = [(r.model, r.context_length) for r in project.results]
    assert len(set(tested)) == len(tested) == 2 * models - 1
    split = [model for model, _ in Counter({(r.model, r.host) for r in project.results}).items()]
    assert len(split) - len({model for model, _ in split}) <= 1


def test_a_host_that_comes_back_is_used_again(project: Project) -> None:
    names = [f"m{n}" for n in range(8)]
    held = Fault(where="load", kind="hang", skip=3)
    with ExitStack() as stack:
        good = LmStudioServer([StandInModel(key=key) for key in names], faults=[held])
        stack.enter_context(good)
        result, servers = run_with_a_host_that_comes_back(project, stack, names, [good], 4)
        check_that_models_were_tested_once(project, result, servers, len(names))


@pytest.mark.long
def test_eight_hosts_of_which_one_dies_and_comes_back(project: Project) -> None:
    names = [f"m{n}" for n in range(48)]
    held = Fault(where="load", kind="hang", skip=1)
    with ExitStack() as stack:
        first = LmStudioServer([StandInModel(key=key) for key in names], faults=[held])
        others = [stack.enter_context(first), *started(stack, *[names] * 6)]
        result, servers = run_with_a_host_that_comes_back(project, stack, names, others, 2)
        result.stdout.fnmatch_lines(["*8 workers*"])
        check_that_models_were_tested_once(project, result, servers, len(names))
