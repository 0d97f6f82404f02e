"""A project's own tests beside models under each mode of pytest-xdist."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.end_to_end.project import Project

OWN = """
import os
from pathlib import Path

import pytest

LOG = Path(__file__).with_name("own.log")

@pytest.fixture(autouse=True)
def noted(request):
    with LOG.open("a") as file:
        file.write(f"{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')} {request.node.name}\\n")

class TestA:
    @pytest.mark.fast
    @pytest.mark.parametrize("n", range(4))
    def test_a(self, n): pass

class TestB:
    @pytest.mark.fast
    @pytest.mark.parametrize("n", range(4))
    def test_b(self, n): pass
"""


@pytest.fixture
def mixed(project: Project) -> Project:
    project.engine(first="", second="")
    project.manifest("[{id: first, contexts: [512, 1024]}, {id: second, contexts: [512, 1024]}]")
    project.pytester.makepyfile(test_own=OWN)
    return project


def workers_of_classes(project: Project) -> dict[str, list[str]]:
    """The workers that have run each test of the class, by `test_a` and `test_b`."""
    found = defaultdict(list)
    for line in (project.path / "own.log").read_text().splitlines():
        worker, test = line.split()
        found[test.partition("[")[0]].append(worker)
    return found


@pytest.mark.parametrize(
    "mode", ["load", "loadscope", "loadfile", "loadgroup", "worksteal", "each", "no"]
)
def test_own_tests_keep_their_mode_and_each_model_runs_once(mixed: Project, mode: str) -> None:
    result = mixed.run("-n", "2", "--dist", mode, "-m", "fast")
    assert result.ret == pytest.ExitCode.OK
    own = workers_of_classes(mixed)
    times = 8 if mode == "each" else 4
    assert [len(own["test_a"]), len(own["test_b"])] == [times, times]
    if mode in ("loadscope", "loadfile"):
        assert [len(set(own["test_a"])), len(set(own["test_b"]))] == [1, 1]
    if mode == "loadfile":
        assert own["test_a"] == own["test_b"]
    if mode == "each":
        assert {own["test_a"].count(each) for each in ("gw0", "gw1")} == {4}
    assert sorted((each.model, each.context_length) for each in mixed.results) == [
        ("first", 512),
        ("first", 1024),
        ("second", 512),
        ("second", 1024),
    ]
    loads = [line for line in mixed.engine_log if line.startswith("load ")]
    assert len(loads) == 4


def test_a_node_id_beside_own_tests_leaves_them_their_mode(mixed: Project) -> None:
    ids = ["models.yaml::test_full[first-512]", "test_own.py"]
    result = mixed.run("-n", "2", "--dist", "loadfile", *ids)
    assert result.ret == pytest.ExitCode.OK
    own = workers_of_classes(mixed)
    assert len({*own["test_a"], *own["test_b"]}) == 1
    assert len(mixed.results) == 1
