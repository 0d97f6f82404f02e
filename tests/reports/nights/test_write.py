"""reports/index.html and reports/runs/: written after each run, and only over files of our own."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.reports.nights.write import keep_run
from pytest_lmstrix.reports.run_json import RunReport
from tests.end_to_end.project import Project
from tests.reports.conftest import STARTED


def later(run: RunReport, days: int) -> RunReport:
    started = STARTED + timedelta(days=days)
    return msgspec.structs.replace(run, run=f"r{days}", started=started)


def test_the_newest_runs_are_kept_by_time_and_id(run: RunReport, tmp_path: Path) -> None:
    for days in (1, 2, 4, 3):
        keep_run(later(run, days), tmp_path, most=3)
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == [f"2026-03-0{2 + days}T04-00-00Z-r{days}.json" for days in (2, 3, 4)]
    kept = json.loads((tmp_path / "runs" / names[-1]).read_bytes())
    assert kept["run"] == "r4"


def test_files_of_others_are_neither_deleted_nor_replaced(run: RunReport, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    others = {
        "notes.json": "mine",
        "2020-01-01T00-00-00Z-old.json": '{"mine": 1}',
        "2020-01-01T00-00-00Z-older.json.bak": "mine",
        "2026-03-04T04-00-00Z-r2.json": "mine",
    }
    for name, text in others.items():
        (folder / name).write_text(text)
    (folder / "2020-01-02T00-00-00Z-folder.json").mkdir()
    keep_run(later(run, 1), tmp_path, most=1)
    keep_run(later(run, 3), tmp_path, most=1)
    with pytest.raises(OSError, match="not written by pytest-lmstrix"):
        keep_run(later(run, 2), tmp_path, most=1)
    assert {name: (folder / name).read_text() for name in others} == others
    assert (folder / "2020-01-02T00-00-00Z-folder.json").is_dir()
    ours = [path.name for path in folder.iterdir() if path.name not in others and path.is_file()]
    assert ours == ["2026-03-05T04-00-00Z-r3.json"]


def test_a_run_id_cannot_leave_the_folder(run: RunReport, tmp_path: Path) -> None:
    path = keep_run(msgspec.structs.replace(run, run="../../x y\n"), tmp_path)
    assert path.parent == tmp_path / "runs"
    assert path.name == "2026-03-02T04-00-00Z-______x_y_.json"


def without_time(text: str) -> str:
    return re.sub(r"Made [0-9: -]+ UTC", "Made", text)


def test_a_run_leaves_the_page_of_nights_which_can_be_rebuilt(project: Project) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    reports = project.path / "reports"
    index = reports / "index.html"
    first = index.read_text(encoding="utf-8")
    assert "1 of 1 tested model works" in first
    assert 'href="report.html"' in first
    (kept,) = (reports / "runs").iterdir()
    assert kept.read_bytes() == (reports / "run.json").read_bytes()
    index.unlink()
    result = project.run("--lmstrix-history", "--lmstrix-format=html")
    assert result.outlines == ["reports/index.html"]
    rebuilt = index.read_text(encoding="utf-8")
    link = '<a href="run.json">run.json</a>'
    assert without_time(first) in (without_time(rebuilt), without_time(rebuilt).replace(link, ""))


@pytest.mark.parametrize("args", [("-k", "tiny"), ()])
def test_the_page_shows_all_models(project: Project, args: tuple[str, ...]) -> None:
    command = "--lmstrix-history" if args else "--lmstrix-history=tiny"
    result = project.run(command, "--lmstrix-format=html", *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --lmstrix-format=html shows all models; *"])
    assert not (project.path / "reports" / "index.html").exists()


def test_only_the_history_has_a_page(project: Project) -> None:
    result = project.run("--lmstrix-list", "--lmstrix-format=html")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --lmstrix-format=html is for --lmstrix-history only"])


def test_a_page_of_another_program_is_left_alone(project: Project) -> None:
    index = project.path / "reports" / "index.html"
    index.parent.mkdir()
    index.write_text("mine")
    result = project.run("--lmstrix")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["lmstrix: *index.html left out: *not written by pytest-lmstrix*"])
    result = project.run("--lmstrix-history", "--lmstrix-format=html")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *index.html cannot be written: *not written by *"])
    assert index.read_text() == "mine"


@pytest.mark.parametrize("function", ["keep_run", "write_index"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RecursionError("deep")])
def test_a_page_that_cannot_be_made_does_not_change_the_result(
    project: Project, monkeypatch: pytest.MonkeyPatch, function: str, error: Exception
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(f"pytest_lmstrix.reports.writer.{function}", fail)
    result = project.run("--lmstrix")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK
    name = "runs" if function == "keep_run" else "index.html"
    lines = [line for line in result.outlines if f"{name} left out: " in line]
    assert len(lines) == 1
    assert (project.path / "reports" / "run.json").exists()


def test_the_page_without_a_registry_explains_itself(project: Project) -> None:
    result = project.run("--lmstrix-history", "--lmstrix-format=html")
    assert result.ret == pytest.ExitCode.OK
    text = (project.path / "reports" / "index.html").read_text(encoding="utf-8")
    assert "No night yet" in text
    assert f"{datetime.now(UTC):%Y}" in text
