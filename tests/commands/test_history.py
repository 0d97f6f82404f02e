"""`--lmstrix-history` and `--lmstrix-accept`: since when models work, without any engine."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.store import Registry
from tests.end_to_end.project import Project
from tests.registry.results import a_result


def a_night(month: int, day: int, version: str, verdict: str = "ok") -> Result:
    """Return a result of model `tiny` on a night of 2025."""
    return a_result(
        8192,
        verdict,
        model="tiny",
        engine="fake",
        machine="here",
        engine_version=version,
        run=f"{month}-{day}",
        at=datetime(2025, month, day, 3, tzinfo=UTC),
    )


@pytest.fixture
def broken(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A model that an update broke on 2 November 2025."""
    monkeypatch.delenv("COLUMNS", raising=False)
    nights = [a_night(10, 30, "0.4.18"), a_night(10, 31, "0.4.18")]
    nights += [a_night(11, day, "0.4.19", "crashed") for day in (2, 3, 4)]
    registry_of(project).append_many(nights)
    return project


def registry_of(project: Project) -> Registry:
    return Registry(project.path / "reports" / "registry.jsonl")


def test_the_history_has_a_sentence_and_a_line_for_each_engine_version(broken: Project) -> None:
    result = broken.run("--lmstrix-history")
    assert result.ret == pytest.ExitCode.OK
    assert result.outlines == [
        "tiny",
        "  full: Worked with 0.4.18, broken since 0.4.19 (2 Nov 2025)",
        "  from        to          engine       runs  verdict  verified  decode  prefill",
        "  2025-10-30  2025-10-31  fake 0.4.18     2  ok          8,192       -        -",
        "  2025-11-02  2025-11-04  fake 0.4.19     3  crashed         -       -        -",
    ]
    assert broken.engine_log == []


def test_a_failed_size_search_is_not_the_verdict_of_a_night(project: Project) -> None:
    found = a_night(10, 30, "0.4.18")
    searched = msgspec.structs.replace(
        found, context_length=16_384, verdict=Verdict.CRASHED, outcome="failed", origin="search"
    )
    registry_of(project).append_many([found, searched])
    line = project.run("--lmstrix-history").outlines[-1]
    assert line.split() == [
        "2025-10-30",
        "2025-10-30",
        "fake",
        "0.4.18",
        "1",
        "ok",
        "8,192",
        "-",
        "-",
    ]


def test_the_history_as_json(broken: Project) -> None:
    (text,) = ["\n".join(broken.run("--lmstrix-history=tiny", "--lmstrix-format=json").outlines)]
    (model,) = json.loads(text)["models"]
    (since,) = model["since"]
    assert (since["state"], since["flaps"], since["seconds"]) == ("broken", 1, 2 * 86_400)
    assert since["last_good"]["engine_version"] == "0.4.18"
    assert since["first_bad"]["at"] == "2025-11-02T03:00:00Z"
    assert [(each["engine_version"], each["verdict"]) for each in model["periods"]] == [
        ("0.4.18", "ok"),
        ("0.4.19", "crashed"),
    ]


def test_the_history_as_markdown(broken: Project) -> None:
    lines = broken.run("--lmstrix-history", "--lmstrix-format=md").outlines
    assert lines[:3] == [
        "## tiny",
        "",
        "- full: Worked with 0.4.18, broken since 0.4.19 (2 Nov 2025)",
    ]
    assert lines[5].startswith("| ---")
    assert "crashed" in lines[7]


def test_a_model_without_results_has_no_history_yet(project: Project) -> None:
    assert project.run("--lmstrix-history").outlines == ["tiny", "  not tested yet"]


@pytest.mark.parametrize("command", ["history", "accept"])
def test_an_unknown_model_is_a_usage_error_with_the_nearest_id(
    project: Project, command: str
) -> None:
    result = project.run(f"--lmstrix-{command}=tyny")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"ERROR: --lmstrix-{command}: 'tyny' is not in models.yaml; did you mean 'tiny'?"]
    )


@pytest.mark.parametrize("width", [40, 80])
def test_the_history_fits_the_terminal(
    broken: Project, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = broken.run("--lmstrix-history").outlines
    assert max(map(len, lines)) <= width


def test_an_accepted_break_is_recorded_with_who_and_when(
    broken: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    assert broken.run("--lmstrix-accept").outlines == ["accepted as it is: tiny"]
    (since,) = registry_of(broken).since("tiny")
    assert since.accepted is not None
    assert since.accepted.by == "ann"
    assert broken.run("--lmstrix-accept=tiny").outlines == ["no regression to accept"]
    broken.run("--lmstrix-history").stdout.fnmatch_lines(["*; accepted by ann (*)"])
