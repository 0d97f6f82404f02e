"""Between two models a worker waits: fixtures live on, and other plugins see their tests alone."""

from __future__ import annotations

import pytest

from tests.end_to_end.project import Project

STRICT = """
import pytest

def note(*words):
    print(*words, file=open(ROOT / "hooks.log", "a"))

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    note("run", item.function.__name__, item.callspec.id)
    if nextitem is not None and nextitem.module is not item.module:
        note("leave", item.module.__name__)
    return (yield)

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    note("setup", item.fixturenames.index("lmstrix_model") >= 0)

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item, nextitem):
    note("teardown", nextitem is None or nextitem.callspec.id >= item.callspec.id)

def pytest_sessionfinish(session):
    note("end", len(session.items), session.testscollected)
"""
"""Hooks, as projects have them, that know tests which are functions with parameters alone."""


def with_models(project: Project, *models: str) -> None:
    project.engine(**dict.fromkeys(models, ""))
    project.manifest(str([{"id": each, "contexts": [512]} for each in models]))


def test_between_models_fixtures_of_a_module_live_and_no_other_plugin_is_called(
    project: Project,
) -> None:
    with_models(project, "a", "b", "c")
    with (project.path / "conftest.py").open("a") as conftest:
        conftest.write(STRICT)
    project.pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.fixture(scope="module")
        def server():
            print("up", file=open("log", "a"))
            yield
            print("down", file=open("log", "a"))
        def test_own(lmstrix_model, server): pass
        """
    )
    project.run_apart("--lmstrix", "-n", "1", "test_own.py").assert_outcomes(passed=3)
    assert (project.path / "log").read_text().split() == ["up", "down"]
    assert project.engine_log[:2] == ["load a 512", "unload a"]
    seen = (project.path / "hooks.log").read_text().splitlines()
    its = [("run test_own " + each, "setup True", "teardown True") for each in
           ("a-512", "b-512", "c-512")]  # fmt: skip
    assert seen == [line for each in its for line in each] + ["end 3 3", "end 0 3"]


def test_a_fixture_that_fails_between_two_models_is_an_error_of_the_last_test(
    project: Project,
) -> None:
    with_models(project, "a", "b")
    project.pytester.makepyfile(
        test_first="def test_first(lmstrix_model): pass",
        test_last="""
        import logging, warnings
        import pytest
        @pytest.fixture(scope="module")
        def server():
            yield
            print("stopping it")
            logging.warning("in vain")
            warnings.warn("left over")
            assert {"stopped": 1} == {"stopped": 0}
        def test_last(lmstrix_model, server): pass
        """,
    )
    args = ("--lmstrix", "-n", "1", "test_first.py", "test_last.py")
    result = project.run_apart(*args)
    result.assert_outcomes(passed=4, errors=2, warnings=2)
    output = result.stdout.str()
    for model in "ab":
        assert f"ERROR at teardown of test_last[{model}-512]" in output
    found = ("E       AssertionError: assert {'stopped': 1} == {'stopped': 0}",
             "Captured stdout teardown", "stopping it", "Captured log teardown", "in vain",
             "UserWarning: left over")  # fmt: skip
    assert [output.count(each) >= 2 for each in found[:-1]] == [True] * 5
    assert found[-1] in output


def test_a_worker_that_dies_between_models_fails_the_run_if_none_takes_its_place(
    project: Project,
) -> None:
    with_models(project, "a", "b", "c")
    project.pytester.makepyfile(
        test_first="def test_first(lmstrix_model): pass",
        test_last="""
        import os
        import pytest
        @pytest.fixture(scope="module")
        def server():
            yield
            if not os.path.exists("died"):
                open("died", "w").close()
                os._exit(1)
        def test_last(lmstrix_model, server): pass
        """,
    )
    args = ("--lmstrix", "-n", "1", "test_first.py", "test_last.py")
    result = project.run_apart(*args, "--max-worker-restart", "0")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["!* not tested, since workers died and were not replaced: b, c !*"]
    )
    (project.path / "died").unlink()
    assert project.run_apart(*args, "--lmstrix-all").ret == pytest.ExitCode.OK
