"""`--lmstrix-health` and `--lmstrix-restore`: output and exit codes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.registry.lines import encode
from pytest_lmstrix.registry.store import Registry
from tests.end_to_end.project import Project
from tests.registry.results import a_result


@pytest.fixture
def registry(project: Project, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry with two results, and a backup of it."""
    monkeypatch.delenv("COLUMNS", raising=False)
    project.manifest("[{id: tiny, context_limit: 8192}]")
    registry = Registry(project.path / "reports" / "registry.jsonl")
    registry.append_many([a_result(size, model="tiny", engine="fake") for size in (512, 1024)])
    registry.backup()
    return registry


def damage(registry: Registry) -> None:
    with registry.path.open("ab") as file:
        file.write(b"{broken\n")


def unreadable(registry: Registry) -> None:
    registry.path.unlink()
    registry.path.mkdir()


def test_a_healthy_registry_exits_with_0(project: Project, registry: Registry) -> None:
    result = project.run("--lmstrix-health")
    assert result.ret == pytest.ExitCode.OK
    assert [line.split() for line in result.outlines] == [
        ["info", "reports/registry.jsonl", "2", "results"],
        ["info", "reports/backups/" + backup(registry).name, "2", "results"],
        ["healthy"],
    ]
    assert project.engine_log == []


def backup(registry: Registry) -> Path:
    (found,) = (registry.path.parent / "backups").glob("*.jsonl")
    return found


def test_a_missing_registry_is_healthy(project: Project) -> None:
    result = project.run("--lmstrix-health")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["info  reports/registry.jsonl  the registry does not exist yet"])


def test_lines_backups_ranges_and_orphans_are_checked(project: Project, registry: Registry) -> None:
    later = datetime.now(UTC) + timedelta(days=2)
    registry.append_many([
        a_result(9000, model="tiny", engine="fake", at=later),
        a_result(512, model="stranger"),
    ])  # fmt: skip
    negative = encode(a_result(512, model="tiny", engine="fake", ttft_seconds=1.0))
    with registry.path.open("ab") as file:
        file.write(negative.replace(b'"ttft_seconds":1.0', b'"ttft_seconds":-1.0'))
        file.write(b'{"schema":1,"context_length":20000000}\n')
    backup(registry).write_bytes(b"{broken\n")
    result = project.run("--lmstrix-health")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([
        "warning  reports/registry.jsonl:3 * is dated in the future: *",
        "error    reports/registry.jsonl:5 * damaged: ttft_seconds must be from 0 *got -1.0",
        "error    reports/registry.jsonl:6 * damaged: *",
        "warning  reports/registry.jsonl * 'tiny' is verified at 9,000 tokens, but declares 8,192",
        "warning  reports/registry.jsonl * 'stranger' has results, but is not in the manifest",
        "warning  reports/backups/* 0 results, 1 damaged line",
        "not healthy: errors mean that results are lost, or cannot be added",
    ])  # fmt: skip


@pytest.mark.parametrize("manifest", ["models: [{id: a, contexst: 1}]", None])
def test_without_a_manifest_orphans_are_not_checked(
    project: Project, registry: Registry, manifest: str | None
) -> None:
    path = project.path / "models.yaml"
    if manifest is None:
        path.unlink()
    else:
        path.write_text(manifest, encoding="utf-8")
    result = project.run("--lmstrix-health")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["warning  models.yaml * not compared with models *: *models.yaml*"]
    )
    result.stdout.no_fnmatch_line("*not in the manifest*")


def test_findings_fit_the_terminal(
    project: Project, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    damage(registry)
    registry.append(a_result(512, model="stranger " * 10))
    lines = project.run("--lmstrix-health").outlines
    assert max(map(len, lines)) <= 72
    assert sum(line.startswith(" " * 4) for line in lines) >= 4


@pytest.mark.parametrize("harm", [damage, unreadable])
def test_a_damaged_registry_is_restored_and_kept_aside(
    project: Project, registry: Registry, harm: object
) -> None:
    assert callable(harm)
    sound = registry.path.read_bytes()
    harm(registry)
    assert project.run("--lmstrix-health").ret == pytest.ExitCode.TESTS_FAILED
    result = project.run("--lmstrix-restore")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["restored reports/backups/registry-*.jsonl: 2 results", "the former registry is kept as *"]
    )
    assert registry.path.read_bytes() == sound
    kept = project.path / result.outlines[1].removeprefix("the former registry is kept as ")
    assert kept.is_dir() if harm is unreadable else kept.read_bytes() == sound + b"{broken\n"
    assert project.run("--lmstrix-health").ret == pytest.ExitCode.OK


def test_a_backup_can_be_selected_by_name(project: Project, registry: Registry) -> None:
    registry.append(a_result(2048, model="tiny", engine="fake"))
    registry.backup()
    oldest = min((registry.path.parent / "backups").glob("*.jsonl"))
    result = project.run(f"--lmstrix-restore={oldest.name}")
    assert result.ret == pytest.ExitCode.OK
    assert registry.path.read_bytes() == oldest.read_bytes()


def test_an_unknown_backup_name_lists_the_existing_ones(
    project: Project, registry: Registry
) -> None:
    result = project.run("--lmstrix-restore=no.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: no.jsonl: *available: {backup(registry).name}"])


def test_restoring_without_backups_is_an_error(project: Project) -> None:
    result = project.run("--lmstrix-restore")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *backups: has no readable backup"])


@pytest.mark.parametrize("backup", ["", "=no.jsonl"])
def test_restore_does_not_create_a_mistyped_registry(project: Project, backup: str) -> None:
    result = project.run(f"--lmstrix-restore{backup}", "--lmstrix-registry=reprots/registry.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    found = {path.name for path in project.path.iterdir()} - {"__pycache__"}
    assert found == {"conftest.py", "models.yaml"}
