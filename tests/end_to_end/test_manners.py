"""The plugin installed in projects that do not use it."""

from __future__ import annotations

import pytest

from tests.end_to_end.project import Project

OWN_ALL = """
def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", dest="theirs")

def test_theirs(pytestconfig):
    assert pytestconfig.option.theirs is True
    assert pytestconfig.option.lmstrix_all is False
"""


@pytest.mark.parametrize("args", [("--all",), ("--help",)])
def test_an_all_option_of_a_conftest_is_kept(project: Project, args: tuple[str, ...]) -> None:
    project.pytester.makeconftest(OWN_ALL)
    result = project.run_apart("conftest.py", *args)
    assert result.ret == pytest.ExitCode.OK
    assert "conflicting option" not in result.stderr.str()
