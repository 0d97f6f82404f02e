"""Recording of runs: a backup first, then one line per case, with any number of writers."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pytest_lmstrix.registry.store import Registry
from tests.end_to_end.project import Project
from tests.registry.results import a_result

MODELS = [f"m{number}" for number in range(10)]
SIZES = (512, 1024, 2048)


@pytest.fixture
def fleet(project: Project) -> Project:
    project.engine(**dict.fromkeys(MODELS, ""))
    entries = (f"{{id: {model}, contexts: {list(SIZES)}}}" for model in MODELS)
    project.manifest(f"[{', '.join(entries)}]")
    return project


def registry_of(project: Project) -> Registry:
    return Registry(project.path / "reports" / "registry.jsonl")


def backups(project: Project) -> list[Path]:
    return sorted((project.path / "reports" / "backups").glob("*"))


def cases(registry: Registry) -> Counter[tuple[str, str, int]]:
    """Count the lines of each case of each run; the registry must be undamaged."""
    loaded = registry.load()
    assert (loaded.damaged, loaded.newer, loaded.torn) == ((), (), None)
    return Counter((each.run, each.model, each.context_length) for each in registry.results())


def test_the_registry_is_backed_up_before_the_first_result(project: Project) -> None:
    registry_of(project).append(a_result(model="earlier"))
    before = registry_of(project).path.read_bytes()
    project.run("--lmstrix").assert_outcomes(passed=2)
    (backup,) = backups(project)
    assert backup.read_bytes() == before
    assert len(project.results) == 3
    project.run("--lmstrix", "--all", "-k", "tiny").assert_outcomes(passed=2)
    assert len(backups(project)) == 2


def test_a_run_without_results_makes_no_backup(project: Project) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    for args in ((), ("--all", "--collect-only")):
        project.run("--lmstrix", *args)
    assert backups(project) == []


def test_sessions_after_damage_do_not_prune_intact_backups(project: Project) -> None:
    registry = registry_of(project)
    registry.append_many(a_result(size, model="earlier") for size in range(1, 303))
    project.run("--lmstrix").assert_outcomes(passed=2)
    registry.path.write_bytes(b"garbage\n")
    for _ in range(11):
        project.run("--lmstrix", "--all", "-k", "512").assert_outcomes(passed=1)
    result = project.run("--lmstrix-restore")
    result.stdout.fnmatch_lines(["restored reports/backups/registry-*.jsonl: 302 results"])
    assert Registry(registry.path).load().results == 302


@pytest.mark.long
def test_eight_workers_write_one_complete_line_per_case(fleet: Project) -> None:
    fleet.run_apart("--lmstrix", "-n", "8").assert_outcomes(passed=30)
    found = cases(registry_of(fleet))
    (run,) = {run for run, _, _ in found}
    assert found == Counter((run, model, size) for model in MODELS for size in SIZES)


@pytest.mark.long
def test_two_concurrent_runs_write_one_complete_line_per_case_each(fleet: Project) -> None:
    command = [sys.executable, "-m", "pytest", "--lmstrix", "--all", "-p", "no:cacheprovider"]
    for _ in range(2):
        fleet.started.append(
            subprocess.Popen(
                command, cwd=fleet.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    for process in fleet.started:
        output = process.communicate(timeout=120)[0].decode()
        assert process.returncode == pytest.ExitCode.OK, output
    found = cases(registry_of(fleet))
    runs = {run for run, _, _ in found}
    assert len(runs) == 2
    assert found == Counter((run, m, size) for run in runs for m in MODELS for size in SIZES)
