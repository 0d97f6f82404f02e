"""Third-party engines: their exceptions do not affect other models."""

from __future__ import annotations

import pytest

from tests.end_to_end.project import Project

CONFTEST = """
from tests.standin.fake_engine import FakeEngine

def broken(*args):
    raise {error}

class Broken(FakeEngine):
    {what} = {how}

def pytest_lmstrix_engines(config):
    return [FakeEngine(), Broken(name="broken")]
"""


@pytest.mark.parametrize("error", ["RuntimeError('no list\\nat all')", "SystemExit(3)"])
@pytest.mark.parametrize("what", ["models", "facts"])
def test_an_engine_that_raises_during_collection(project: Project, what: str, error: str) -> None:
    project.pytester.makeconftest(CONFTEST.format(what=what, how="broken", error=error))
    project.manifest("[{id: tiny, contexts: [512]}, {id: tiny2, engine: broken, contexts: [512]}]")
    result = project.run("--lmstrix")
    result.assert_outcomes(passed=1, xfailed=1)
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_an_engine_that_fails_to_return_its_version(project: Project) -> None:
    error = "RuntimeError('none')"
    project.pytester.makeconftest(
        CONFTEST.format(what="version", how="property(broken)", error=error)
    )
    project.manifest("[{id: tiny, engine: broken, contexts: [512]}]")
    for _ in range(2):
        project.run("--lmstrix", "--all").assert_outcomes(passed=1)
    assert [result.engine_version for result in project.results] == [None, None]
