"""Runs with other plugins: each mode of pytest-xdist, and the retries of pytest-rerunfailures."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from tests.end_to_end.project import Project
from tests.sampling import few_of

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
    "mode", few_of(["load", "each", "loadscope", "loadfile", "loadgroup", "worksteal", "no"], 2)
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


FAILS_FIRST = """
from pathlib import Path

def test_own(lmstrix_model):
    tried = Path(__file__).with_name("tried")
    first = not tried.exists()
    tried.touch()
    assert not first
"""


@pytest.mark.parametrize("args", [(), ("-n", "2")], ids=["serial", "xdist"])
def test_a_pass_on_the_second_try_is_noted_as_one(project: Project, args: tuple[str, ...]) -> None:
    project.manifest("[{id: tiny, contexts: [512]}]")
    project.pytester.makepyfile(test_own=FAILS_FIRST)
    result = project.run_apart("--lmstrix", "--reruns", "2", "-k", "test_own", *args)
    assert result.ret == pytest.ExitCode.OK
    outcomes = result.parseoutcomes()
    assert [outcomes[name] for name in ("passed", "rerun")] == [1, 1]
    result.stdout.fnmatch_lines(["*tiny*ok, passed on try 2*"])
    run = json.loads(Path(project.path, "reports", "run.json").read_bytes())
    assert [case["outcome"] for case in run["cases"]] == ["passed"]
    summary = Path(project.path, "reports", "summary.md").read_text(encoding="utf-8")
    assert "wrong_answer" not in summary


def test_a_failure_of_every_try_is_one(project: Project) -> None:
    project.engine(tiny="behaviours=(Says(text='No idea.'),)")
    project.manifest("[{id: tiny, contexts: [512]}]")
    result = project.run_apart("--lmstrix", "--reruns", "1")
    outcomes = result.parseoutcomes()
    assert [outcomes[name] for name in ("failed", "rerun")] == [1, 1]
    run = json.loads(Path(project.path, "reports", "run.json").read_bytes())
    assert [case["outcome"] for case in run["cases"]] == ["failed"]
