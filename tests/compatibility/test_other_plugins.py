"""Other pytest plugins: a project's own tests, and model tests, beside each of them.

`LMSTRIX_TEST_COMPATIBILITY=1` asks for these tests in an environment that has the dependency group
`compatibility`; a plugin that is missing there is a failure.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.end_to_end.project import Project

pytestmark = pytest.mark.skipif(
    "LMSTRIX_TEST_COMPATIBILITY" not in os.environ,
    reason="other plugins: asked for by LMSTRIX_TEST_COMPATIBILITY=1",
)

PLUGINS = {
    "randomly": ("randomly",),
    "rerunfailures": ("rerunfailures", "--reruns=1"),
    "timeout": ("timeout", "--timeout=60"),
    "cov": ("pytest_cov", "--cov=.", "--cov-report="),
    "asyncio": ("asyncio", "-o", "asyncio_default_fixture_loop_scope=function"),
    "sugar": ("sugar", "--force-sugar"),
    "json-report": ("pytest_jsonreport", "--json-report"),
    "benchmark": ("benchmark",),
    "syrupy": ("syrupy", "--snapshot-update"),
    "hypothesis": ("hypothesispytest",),
    **{f"xdist-{mode}": ("xdist", "-n2", f"--dist={mode}")
       for mode in ("load", "loadscope", "loadfile", "loadgroup", "worksteal", "no")},
}  # fmt: skip
"""Their name under pytest's entry points, and the arguments that make them do their work."""

OWN_TESTS = """
import pytest

@pytest.mark.parametrize("number", range(6))
def test_number(number):
    assert number >= 0

def test_failing():
    assert 1 == 2

@pytest.mark.xfail
def test_expected():
    assert False
"""
ASYNCIO = """
import asyncio, pytest

@pytest.mark.asyncio
async def test_sleep():
    await asyncio.sleep(0)
"""
BENCHMARK = """
def test_speed(benchmark):
    assert benchmark(sum, [1, 2]) == 3
"""
SYRUPY = """
def test_snapshot(snapshot):
    assert {"a": 1} == snapshot
"""
HYPOTHESIS = """
from hypothesis import given, strategies

@given(strategies.integers())
def test_integers(number):
    assert number == number
"""
MORE = {"asyncio": ASYNCIO, "benchmark": BENCHMARK, "syrupy": SYRUPY, "hypothesis": HYPOTHESIS}
"""A test of the project's own that needs the plugin."""

Outcomes = dict[str, int]


@pytest.fixture(params=PLUGINS)
def plugin(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    installed = {entry.name for entry in entry_points(group="pytest11")}
    assert PLUGINS[name][0] in installed, f"the group `compatibility` lacks {name}"
    return name


def run(project: Project, plugin: str, *args: str) -> pytest.RunResult:
    """Run pytest with this plugin, ours, and what ours needs."""
    name, *own = PLUGINS[plugin]
    needed = {"lmstrix", "xdist", "xdist.looponfail", "html", "metadata", name}
    others = {entry.name for entry in entry_points(group="pytest11")} - needed
    blocked = (f"-pno:{each}" for each in sorted(others))
    return project.run_apart("-Werror", *blocked, *own, *args)


def files(path: Path) -> set[str]:
    """What a run left, but for caches and pytester's own folders."""
    ours = ("__pycache__", ".pytest_cache", ".hypothesis", "runpytest-")
    return {str(each) for each in path.rglob("*") if not any(name in str(each) for name in ours)}


def test_own_tests_run_as_without_the_plugin(project: Project, plugin: str) -> None:
    (project.path / "conftest.py").unlink()
    project.pytester.makepyfile(test_own=OWN_TESTS, test_more=MORE.get(plugin, ""))
    without = run(project, plugin, "-p", "no:lmstrix")
    left = files(project.path)
    beside = run(project, plugin)
    assert beside.parseoutcomes() == without.parseoutcomes()
    assert beside.ret == without.ret == pytest.ExitCode.TESTS_FAILED
    assert files(project.path) == left, "no file of ours"
    assert "lmstrix" not in "\n".join(beside.outlines[-15:]).replace(str(project.path), "")


def test_models_are_judged_as_without_the_other_plugin(project: Project, plugin: str) -> None:
    project.engine(tiny="", broken="behaviours=(Corrupted(at='load'),)")
    project.manifest("[{id: tiny, contexts: [512, 1024]}, {id: broken, contexts: [512]}]")
    project.pytester.makepyfile(test_own=OWN_TESTS)
    result = run(project, plugin, "--lmstrix", "--all")
    assert result.ret == pytest.ExitCode.OK, result.outlines[-30:]
    found = {(each.model, each.context_length): each.verdict for each in project.results}
    assert found == {("tiny", 512): "ok", ("tiny", 1024): "ok", ("broken", 512): "corrupted"}
    assert len(project.results) == 3, "each case is recorded once"
    assert (project.path / "reports" / "report.html").is_file()


def test_a_mixed_run_judges_models_and_runs_own_tests(project: Project, plugin: str) -> None:
    project.pytester.makepyfile(
        test_own=OWN_TESTS.replace("def test_number", "@pytest.mark.fast\ndef test_number")
    )
    project.pytester.makeini("[pytest]\nmarkers = fast: a mark of the project's own")
    result = run(project, plugin, "-m", "fast", "--junitxml=junit.xml")
    assert result.ret == pytest.ExitCode.OK, result.outlines[-30:]
    assert (project.path / "junit.xml").read_text("utf-8").count("<testcase ") == 6 + 2
    assert {each.verdict for each in project.results} == {"ok"}
    assert len(project.results) == 2


def test_a_rerun_counts_by_its_last_attempt(project: Project) -> None:
    project.pytester.makepyfile(
        test_flaky="""
        from pathlib import Path

        def test_reply(lmstrix_model):
            seen = Path("seen")
            first = not seen.exists()
            seen.write_text("", encoding="utf-8")
            assert not first
        """
    )
    result = run(project, "rerunfailures", "--lmstrix", "-k", "test_reply and 512")
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["rerun"]) == (1, 1)
    assert result.ret == pytest.ExitCode.OK
    assert project.results[-1].verdict == "ok"
