"""A fleet with one of every broken thing: each run ends with its table, failures and reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project
from tests.standin.sixty import NAMES

CONFTEST = """
from tests.standin.sixty import fleet

def pytest_lmstrix_engines(config):
    return [fleet()]
"""

VERDICTS = {
    "missing": Verdict.MODEL_NOT_FOUND,
    "corrupted": Verdict.CORRUPTED,
    "crashes": Verdict.CRASHED,
    "crashes-once": Verdict.OK,
    "times-out": Verdict.TIMEOUT,
    "unsupported": Verdict.UNSUPPORTED,
    "out-of-memory": Verdict.OUT_OF_MEMORY,
    "template": Verdict.TEMPLATE_ERROR,
    "empty": Verdict.EMPTY_REPLY,
    "nan": Verdict.OK,
    "absurd": Verdict.OK,
    "infinite": Verdict.OK,
}


@pytest.fixture
def fleet(project: Project) -> Project:
    project.pytester.makeconftest(CONFTEST)
    project.manifest(json.dumps([{"id": name, "contexts": [512]} for name in NAMES]))
    return project


def assert_complete(project: Project, result: pytest.RunResult, *, files: bool = True) -> None:
    """The run ended as runs do that have failures."""
    printed = result.stdout.str()
    assert result.ret == pytest.ExitCode.TESTS_FAILED, printed[-3000:]
    assert "INTERNALERROR" not in printed + result.stderr.str()
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] >= 31
    assert outcomes["failed"] + outcomes.get("xfailed", 0) >= 20
    result.stdout.fnmatch_lines(["*= FAILURES =*", "model * verdict *", "healthy-24 *"])
    if not files:
        return
    run = json.loads((project.path / "reports" / "run.json").read_text("utf-8"))
    found = {model["id"]: model for model in run["models"]}
    assert len(found) >= 59
    page = (project.path / "reports" / "report.html").read_text("utf-8")
    assert all(f"healthy-{n:02}" in page for n in range(25))
    assert "<b>::add" not in page
    assert (project.path / "reports" / "summary.md").exists()


def test_a_fleet_with_one_of_every_trouble_ends_twice_with_everything(fleet: Project) -> None:
    first = fleet.run_apart("--lmstrix", "--color=no")
    assert_complete(fleet, first)
    newest = {result.model: result for result in fleet.results if result.origin == "case"}
    assert {name: newest[name].verdict for name in VERDICTS} == VERDICTS
    assert [newest[f"healthy-{n:02}"].ttft_seconds for n in (0, 24)] == [1e-4, 100.0]
    for odd in ("nan", "absurd", "infinite"):
        assert (newest[odd].ttft_seconds is None) == (odd != "absurd")
    assert newest["absurd"].decode_tokens_per_second is None
    health = fleet.run_apart("--lmstrix-health")
    assert health.ret == 0, health.stdout.str()
    second = fleet.run_apart("--lmstrix", "--all", "--color=no")
    assert_complete(fleet, second)


def test_a_fleet_ends_where_registry_and_reports_are_in_trouble(fleet: Project) -> None:
    reports = fleet.path / "reports"
    for folder in ("report.html", "run.json", "summary.md"):
        (reports / folder).mkdir(parents=True)
    registry = reports / "registry.jsonl"
    registry.write_bytes(b"\xff\x00\n{}\n" + b"x" * 20_000_000 + b"\n" + b'{"schema":99}\n{"torn')
    for args in (("--all",), ("--all", "-n", "2")):
        result = fleet.run_apart("--lmstrix", "--color=no", *args)
        assert_complete(fleet, result, files=False)
        result.stdout.fnmatch_lines(["lmstrix: *damaged lines left out*"])
        for name in ("run.json", "summary.md"):
            result.stdout.fnmatch_lines([f"lmstrix: reports?{name} left out: *"])
    assert registry.read_bytes().count(b'"model":"healthy-24"') == 2
    assert Path(reports, "report.html").is_dir()
