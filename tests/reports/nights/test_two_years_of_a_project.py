"""A run after two years of nights: terminal, summary, run.json, list, history and page agree."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.core.types import Acceptance
from pytest_lmstrix.registry.store import Registry
from tests.end_to_end.project import Project
from tests.reports.nights.two_years import SIZE, Model, Truth, day, lines

NIGHTS = 730
BROKE = "OutOfMemory(above=100)"
BEHAVIOURS = {"steady": "", "broken": BROKE, "flapping": BROKE, "accepted": BROKE}


def truths(today: date) -> dict[str, tuple[Model, Truth]]:
    """Return the scripts of the models, which end tonight, and the truth about them."""
    start = today - timedelta(days=NIGHTS - 1)
    flapping = [(n // 9) % 2 == 0 for n in range(NIGHTS - 4)] + [True, True, True, False]
    models = (
        Model("steady", [True] * NIGHTS, "out_of_memory"),
        Model("broken", [n < NIGHTS - 30 for n in range(NIGHTS)], "out_of_memory"),
        Model("flapping", flapping, "out_of_memory"),
        Model("accepted", [n < NIGHTS - 30 for n in range(NIGHTS)], "out_of_memory",
              accepted={NIGHTS - 10: "ada"}),
    )  # fmt: skip
    return {model.name: (model, model.truth(start)) for model in models}


@pytest.fixture
def tonight(project: Project, monkeypatch: pytest.MonkeyPatch) -> tuple[Project, dict[str, Truth]]:
    """A project with two years of nights before a run."""
    monkeypatch.setenv("COLUMNS", "200")
    models = ", ".join(f"{{id: {name}, contexts: [{SIZE}]}}" for name in BEHAVIOURS)
    project.manifest(f"[{models}]")
    project.engine(**{name: f"behaviours=({more},)" if more else "" for name, more in
                      BEHAVIOURS.items()})  # fmt: skip
    project.run("--lmstrix", "--all")
    setups = {result.model: result for result in project.results if result.origin == "case"}
    today = datetime.now(UTC).date()
    told = truths(today)
    path = project.path / "reports" / "registry.jsonl"
    path.unlink()
    registry = Registry(path)
    start = today - timedelta(days=NIGHTS - 1)
    for name, (model, _) in told.items():
        setup = setups[name]
        model.works.pop()  # tonight's result is that of the run
        items = list(lines([model], start, engine="fake", machine=setup.machine, host=setup.host,
                           fingerprint=setup.fingerprint, settings=setup.settings))  # fmt: skip
        registry.append_many(item for item in items if not isinstance(item, Acceptance))
        registry.accept(item for item in items if isinstance(item, Acceptance))
    return project, {name: truth for name, (_, truth) in told.items()}


def test_every_report_says_the_same(tonight: tuple[Project, dict[str, Truth]]) -> None:
    project, told = tonight
    today = datetime.now(UTC).date()
    result = project.run("--lmstrix", "--all", "-n0")
    result.assert_outcomes(passed=1, failed=3)
    screen = result.stdout.str()
    reports = project.path / "reports"
    summary = (reports / "summary.md").read_text(encoding="utf-8").replace("\\", "")
    index = (reports / "index.html").read_text(encoding="utf-8")
    found = json.loads((reports / "run.json").read_bytes())
    known = {model["id"]: model["since"][0] for model in found["models"]}
    listed = project.run("--lmstrix-list").stdout.str()
    history = project.run("--lmstrix-history").stdout.str()
    for text in (screen, summary):
        assert "1 of 4 works below its declared context, 3 not at all" in text
    assert "1 of 4 tested models works" in index
    order = [screen.rindex(f"\n{name}  ") for name in ("flapping", "accepted", "steady")]
    assert order == sorted(order), "failures first, those that worked before and are not accepted"
    for name, truth in told.items():
        since = known[name]
        assert since["state"] == truth.state
        assert since["began"]["at"].startswith(str(truth.began[0]))
        assert since.get("flaps", 0) == truth.flaps
        assert ("accepted" in since) is (truth.accepted is not None)
        cell = f"{truth.state} {truth.began[0]}"
        (line,) = (line for line in listed.splitlines() if line.startswith(f"{name} "))
        assert cell in line
        row = index.partition(f'<th scope="row">{name}<')[2].partition("<tr")[0]
        assert cell in row
        sentence = sentence_of(truth, today)
        assert f"{name}\n  full: {sentence}" in history
        if truth.state == "broken":
            assert sentence in summary
            assert sentence in index
        if name in ("broken", "flapping"):
            assert f"{name}: {sentence}" in screen
            assert f"| {name} | full at 8,192 |" in summary


def sentence_of(truth: Truth, today: date) -> str:
    """Return the sentence about a run tonight, whose engine has no version."""
    text = truth.sentence(today)
    return (
        text
        if truth.began[0] < today
        else text.replace(f"{truth.began[1]} (", "").replace(
            f"{day(today, today)})", day(today, today)
        )
    )
