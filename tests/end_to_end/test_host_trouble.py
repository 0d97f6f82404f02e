"""Trouble of a host, and runs that judge no model: nothing counts against a model."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.store import Registry
from tests.end_to_end.project import Project

BROKEN = "behaviours=(FailsToLoad(text='Failed to start the worker: code 7'),)"
RUNTIME = "behaviours=(FailsToLoad(text='Failed to load LLM engine from path: /x/y.node'),)"
FIVE = "[" + ", ".join(f"{{id: m{n}, contexts: [512, 1024]}}" for n in range(5)) + "]"


def engine(project: Project, how: str) -> None:
    project.engine(**{f"m{n}": how for n in range(5)})
    project.manifest(FIVE)


def statuses(project: Project) -> set[str]:
    registry = Registry(project.path / "reports" / "registry.jsonl")
    return {status.status for status in registry.statuses()}


def test_the_same_words_from_three_models_stop_the_run_of_their_host(project: Project) -> None:
    engine(project, BROKEN)
    result = project.run("--lmstrix", "-rsE")
    result.assert_outcomes(failed=4, errors=1, skipped=5)
    result.stdout.fnmatch_lines_random(
        ["*The same words from 3 models in a row (m0, m1, m2): nothing counts against them*"]
    )
    assert {r.model for r in project.results} == {"m0", "m1", "m2"}
    assert statuses(project) == {"untested"}
    table = [line.split()[:5] for line in result.outlines if line.startswith(("m0", "m1", "m2"))]
    assert [row[4] for row in table] == ["host_trouble"] * 3


def test_a_host_in_trouble_leaves_what_was_known(project: Project) -> None:
    engine(project, "")
    project.run("--lmstrix").assert_outcomes(passed=10)
    engine(project, BROKEN)
    result = project.run("--lmstrix", "--lmstrix-all", "--lmstrix-fail-on-regression")
    result.stdout.no_fnmatch_line("*newly broken*")
    registry = Registry(project.path / "reports" / "registry.jsonl")
    assert {registry.verified_context(f"m{n}") for n in range(5)} == {1024}
    engine(project, "")
    result = project.run("--lmstrix", "--lmstrix-all", "--lmstrix-fail-on-regression")
    result.assert_outcomes(passed=10)
    result.stdout.no_fnmatch_line("*newly working*")


def test_a_broken_runtime_is_never_the_models(project: Project) -> None:
    engine(project, RUNTIME)
    result = project.run("--lmstrix")
    result.assert_outcomes(errors=3, skipped=7)
    assert {r.verdict for r in project.results} == {Verdict.HOST_TROUBLE}
    assert all(r.retried for r in project.results[:2])
    assert statuses(project) == {"untested"}


def test_users_own_tests_are_stopped_as_well(project: Project) -> None:
    engine(project, BROKEN)
    project.pytester.makepyfile("def test_own(lmstrix_model): pass")
    result = project.run("--lmstrix", "-k", "test_own and 512")
    result.assert_outcomes(failed=2, errors=1, skipped=2)
    assert statuses(project) == {"untested"}


@pytest.mark.parametrize("xdist", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_a_run_whose_models_are_all_missing_fails(project: Project, xdist: tuple[str]) -> None:
    project.engine(**{"llama-3.2-3b-instruct": "", "other": ""})
    project.manifest("[{id: llama-3.2-3b-instrct, contexts: [512]}]")
    result = project.run("--lmstrix", "-rx", *xdist)
    result.assert_outcomes(xfailed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["XFAIL*", "did you mean 'llama-3.2-3b-instruct'[?]"])
    result.stdout.fnmatch_lines(
        [
            "lmstrix: no model was judged (1 model: model_not_found): llama-3.2-3b-instrct:"
            " did you mean 'llama-3.2-3b-instruct'[?]"
        ]
    )


def test_one_missing_model_beside_others_fails_no_run(project: Project) -> None:
    project.manifest("[{id: tiny, contexts: [512]}, {id: zzz, contexts: [512]}]")
    result = project.run("--lmstrix")
    result.assert_outcomes(passed=1, xfailed=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*no model was judged*")
    result.stdout.no_fnmatch_line("*did you mean*")


def test_a_host_that_cannot_be_used_is_named(project: Project) -> None:
    project.pytester.makeconftest("""
from pytest_lmstrix import Failure, Verdict
from tests.standin.fake_engine import FakeEngine

class Locked(FakeEngine):
    host = "h:1"
    def load(self, *_):
        raise Failure("it wants a token", verdict=Verdict.UNREACHABLE, phase="load", final=True)

def pytest_lmstrix_engines(config):
    return [Locked()]
""")
    hosts, model = "[{name: den, url: 'fake://h:1'}]", "{id: tiny, engine: fake, contexts: [8, 9]}"
    project.pytester.makefile(".yaml", models=f"hosts: {hosts}\nmodels: [{model}]")
    result = project.run("--lmstrix", "-rsE")
    result.assert_outcomes(errors=1, skipped=1)
    result.stdout.fnmatch_lines_random([
        "unreachable on den: it wants a token",
        "*tiny, full at 8 on den: it wants a token",
        "ERROR *test_full?tiny-8? - unreachable on den: it wants a token",
        "SKIPPED * unreachable on den: it wants a token",
    ])  # fmt: skip
