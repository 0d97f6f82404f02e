from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.registry.health import LISTED, HealthReport, Problem, check_health
from pytest_lmstrix.registry.lines import encode
from pytest_lmstrix.registry.store import Registry
from tests.registry.results import a_result


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.jsonl"


def trouble(report: HealthReport) -> list[Problem]:
    return [finding for finding in report.findings if finding.severity != "info"]


def said(path: Path, *lines: Result | bytes, **known: object) -> list[tuple[str, int | None, str]]:
    path.write_bytes(
        b"".join(x if isinstance(x, bytes) else msgspec.json.encode(x) + b"\n" for x in lines)
    )
    report = check_health(path, **known)  # type: ignore[arg-type]
    assert report.healthy == all(finding.severity != "error" for finding in report.findings)
    return [(finding.severity, finding.line, finding.text) for finding in trouble(report)]


def test_a_healthy_registry_and_its_backups(path: Path) -> None:
    registry = Registry(path)
    registry.append(a_result())
    registry.backup()
    report = check_health(path, models={"m"}, context_limits={"m": 8192})
    assert report.healthy
    assert trouble(report) == []
    assert [finding.text for finding in report.findings] == ["1 result", "1 result"]


def test_a_missing_registry_is_healthy(path: Path) -> None:
    [finding] = check_health(path).findings
    assert (finding.severity, finding.text) == ("info", "the registry does not exist yet")


def test_damaged_lines_are_reported_by_number_without_changes(path: Path) -> None:
    found = said(path, a_result(), b"\xff\n", b"\n", b"{}\n", a_result(), b"{")
    assert [(severity, line) for severity, line, _ in found] == [
        ("error", 2),
        ("error", 4),
        ("warning", 6),
    ]
    assert "missing required field" in found[1][2]
    assert list(path.parent.iterdir()) == [path]


def test_a_newer_schema_is_a_warning(path: Path) -> None:
    [(severity, line, text)] = said(path, b'{"schema":7}\n')
    assert (severity, line) == ("warning", 1)
    assert "later version" in text


@pytest.mark.parametrize(
    ("fields", "severity", "text"),
    [
        (
            {"load_seconds": -1.5},
            "error",
            "damaged: load_seconds must be from 0 to 10,000,000, got -1.5",
        ),
        (
            {"peak_memory_bytes": -1},
            "error",
            "damaged: peak_memory_bytes must be from 0 to 9,223,372,036,854,775,807, got -1",
        ),
        ({"granted_context_length": 0}, "error", "granted_context_length 0 is out of range"),
        (
            {"context_length": 0},
            "error",
            "damaged: context_length must be 1 to 2,147,483,647, got 0",
        ),
        ({"outcome": "failed"}, "error", "verdict ok does not match outcome failed"),
        (
            {"granted_context_length": 2**31 + 256},
            "error",
            "granted_context_length 2,147,483,904 is out of range",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_values_out_of_range_are_reported(
    path: Path, fields: dict[str, object], severity: str, text: str
) -> None:
    bad = msgspec.structs.replace(a_result(), **fields)
    assert said(path, a_result(), bad, context_limits={"m": 8192}) == [(severity, 2, text)]


def test_padded_and_larger_contexts_and_user_checks_are_healthy(path: Path) -> None:
    padded = a_result(8190, granted_context_length=8192)
    larger = a_result(8190, granted_context_length=131_072)
    mine = a_result(check="test_mine", outcome="failed")
    assert said(path, padded, larger, mine, context_limits={"m": 8191}, models=["m"]) == []
    largest = a_result(2**31 - 1, granted_context_length=2**31 + 255)
    assert said(path, largest) == []


def test_a_future_time_is_a_warning(path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    late = datetime.now(UTC) + timedelta(days=1)
    [(severity, line, text)] = said(path, a_result(at=soon), a_result(at=late))
    assert (severity, line) == ("warning", 2)
    assert "future" in text


def test_orphaned_models_are_reported_once(path: Path) -> None:
    lines = a_result(model="gone"), a_result(model="gone"), a_result()
    [(severity, line, text)] = said(path, *lines, models=["m"])
    assert (severity, line) == ("warning", None)
    assert "'gone'" in text
    assert said(path, *lines) == []


def test_a_verified_size_above_the_declared_maximum_is_reported(path: Path) -> None:
    assert said(path, a_result(8192), context_limits={"m": 8191}) == [
        ("warning", None, "'m' is verified at 8,192 tokens, but declares 8,191")
    ]
    assert said(path, a_result(8192), context_limits={"m": 8192}) == []


def test_many_damaged_lines_are_counted_not_listed(path: Path) -> None:
    found = said(path, b"x\n" * (LISTED + 5))
    assert len(found) == LISTED + 1
    assert found[-1] == ("error", None, "5 more findings of this severity")


def test_a_binary_file_or_a_folder_as_registry_is_reported(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 10)
    assert not check_health(path).healthy
    path.unlink()
    path.mkdir()
    report = check_health(path)
    assert not report.healthy
    assert "is not a file" in report.findings[0].text


def test_damaged_backups_are_reported_by_file(path: Path) -> None:
    registry = Registry(path)
    registry.append(a_result())
    damaged, folder = registry.backup(), registry.backup()
    assert damaged is not None
    assert folder is not None
    damaged.write_bytes(encode(a_result()) + b"\0\n")
    folder.unlink()
    folder.mkdir()
    report = check_health(path)
    assert [(finding.where, finding.text) for finding in trouble(report)] == [
        (damaged, "1 result, 1 damaged line"),
        (folder, "is not a file; move it away or name another registry"),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
@pytest.mark.parametrize("name", ["registry.jsonl", "registry.jsonl.lock", "backups"])
def test_paths_without_write_permission_are_errors(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    registry = Registry(path)
    registry.append(a_result())
    registry.backup()
    needed = path.with_name(name)
    # root can write anything
    monkeypatch.setattr("os.access", lambda asked, *_: asked != needed)
    [finding] = trouble(check_health(path))
    assert (finding.severity, finding.where) == ("error", needed)
    assert finding.text == "results cannot be added: no permission"


def test_a_folder_where_no_registry_can_be_created_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda asked, *_: asked != path.parent)
    report = check_health(path.parent / "reports" / path.name)
    assert not report.healthy
    assert {one.text for one in trouble(report)} == {
        "results cannot be added: no permission to create it"
    }


def test_paths_of_the_wrong_type_are_errors(path: Path) -> None:
    Registry(path).append(a_result())
    lock, backups = path.with_name(f"{path.name}.lock"), path.with_name("backups")
    lock.unlink()
    lock.mkdir()
    backups.touch()
    assert [(one.where, one.text) for one in trouble(check_health(path))] == [
        (lock, "results cannot be added: must be a file"),
        (backups, "results cannot be added: must be a folder"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        b'"recall":{"abc":true}',
        b'"recall":{"-1":true}',
        b'"recall":{"1.5":true}',
        b'"decode_tokens_per_second":1e20',
        b'"ttft_seconds":1e300',
        b'"prompt_tokens":1180591620717411303424',
    ],
)
def test_an_impossible_number_is_damage(path: Path, fields: bytes) -> None:
    line = encode(a_result()).replace(b'{"schema":1,', b'{"schema":1,' + fields + b",", 1)
    [(severity, number, text)] = said(path, a_result(), line)
    assert (severity, number) == ("error", 2)
    assert text.startswith("damaged: ")
