"""Beside pytest-rerunfailures: the last try of a test counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.project import Project

OWN = """
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
    project.pytester.makepyfile(test_own=OWN)
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
