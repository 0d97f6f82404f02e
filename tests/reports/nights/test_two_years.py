"""Registries of two years: every report says what is true by construction."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_lmstrix.commands import history
from pytest_lmstrix.commands import list as listing
from pytest_lmstrix.core.types import Acceptance, Result
from pytest_lmstrix.core.types import Model as Entry
from pytest_lmstrix.core.verdicts import TRAITS, Verdict
from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.reports.nights.board import board_of
from pytest_lmstrix.reports.nights.page import page
from tests.reports.nights.two_years import (
    NIGHTS,
    Model,
    Truth,
    lines,
    random_models,
    scripted,
)

TODAY = date(2026, 10, 31)
START = TODAY - timedelta(days=NIGHTS - 1)
SHOWN = [TODAY - timedelta(days=n) for n in range(60)]


def registry_of(path: Path, items: Iterable[Result | Acceptance]) -> Registry:
    registry = Registry(path / "registry.jsonl")
    results: list[Result] = []
    for item in items:
        if isinstance(item, Result):
            results.append(item)
        else:
            registry.append_many(results)
            registry.accept([item])
            results = []
    registry.append_many(results)
    return registry


SCRIPTS: dict[str, Callable[[], list[Model]]] = {
    "scripted": scripted,
    **{f"random {seed}": lambda seed=seed: random_models(seed) for seed in range(3)},
}


@pytest.fixture(scope="module", params=SCRIPTS)
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Registry, list[Truth]]:
    """Return a registry and the truth about its models."""
    models = SCRIPTS[request.param]()
    registry = registry_of(tmp_path_factory.mktemp("registry"), lines(models, START))
    return registry, [model.truth(START) for model in models]


Told = tuple[Registry, list[Truth]]


def test_the_registry_knows_since_when(told: Told) -> None:
    registry, truths = told
    for truth in truths:
        (since,) = registry.since(truth.model)
        assert since.state == truth.state, truth.model
        assert (since.began.at.date(), since.began.engine_version) == truth.began, truth.model
        good = since.last_good
        assert (good and (good.at.date(), good.engine_version)) == (
            max((night, v) for night, v in moments(truth) if truth.verdicts[night] == "ok")
            if truth.state == "works" else truth.last_good
        ), truth.model  # fmt: skip
        assert since.flaps == truth.flaps, truth.model
        accepted = since.accepted
        assert (accepted and (accepted.at.date(), accepted.by)) == truth.accepted, truth.model


def moments(truth: Truth) -> list[tuple[date, str]]:
    return [(night, f"0.4.{(night - START).days // 45}") for night in truth.verdicts]


def plain_text(text: str, colour: str) -> str:
    return text


def entries(truths: Iterable[Truth]) -> list[Entry]:
    return [Entry(id=truth.model, engine="lmstudio") for truth in truths]


def test_the_list_and_its_json_say_it(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, truths = told
    settings: Any = SimpleNamespace(
        contexts=None, registry=registry.path, models=registry.path.with_name("models.yaml")
    )
    listed = listing.entries(entries(truths), registry, settings, key="id", keyword="")
    text = list(listing.as_table(listed, key="id", paint=plain_text, width=None))
    found = {entry["id"]: entry for entry in json.loads(listing.as_json(listed, None))["models"]}
    for truth in truths:
        (line,) = (line for line in text if line.startswith(f"{truth.model} "))
        assert truth.cell() in line
        since = found[truth.model]["since"]
        assert since["state"] == truth.state
        assert since["began"]["at"].startswith(f"{truth.began[0]}")
        assert ("accepted" in since) is (truth.accepted is not None)


def test_the_history_and_its_json_say_it(told: Told) -> None:
    registry, truths = told
    found = history.histories(entries(truths), registry)
    today = datetime.now(UTC).date()
    text = "\n".join(history.history_text(found, paint=plain_text, width=None))
    markdown = "\n".join(history.history_markdown(found)).replace("\\", "")
    models = {each["model"]: each for each in json.loads(history.history_json(found))["models"]}
    for truth in truths:
        sentence = f"full: {truth.sentence(today)}\n"
        assert sentence in text.partition(f"{truth.model}\n")[2].partition("\n  from")[0] + "\n"
        assert sentence in markdown.partition(f"## {truth.model}\n")[2].partition("|")[0]
        (since,) = models[truth.model]["since"]
        assert (since["state"], since.get("flaps", 0)) == (truth.state, truth.flaps)
        days = (max(truth.verdicts) - truth.began[0]).days
        assert since["seconds"] == days * 86_400


def test_the_page_of_nights_says_it(told: Told) -> None:
    registry, truths = told
    text = page(board_of(registry), made=datetime(2026, 10, 31, 6, tzinfo=UTC))
    nights = re.findall(r'<th scope="col" abbr="([0-9-]+)">', text)
    assert nights[:60] == [str(night) for night in SHOWN]
    for truth in truths:
        row = text.partition(f'<th scope="row">{truth.model}<')[2].partition("<tr")[0]
        assert f">{truth.cell()}<" in row
        assert cells_of(row) == expected_cells(truth)
        mentioned = f"full, {truth.verdicts[max(truth.verdicts)].replace('_', ' ')}."
        sentence = html.escape(f"{mentioned} {truth.sentence(TODAY)}.")
        broken, _, accepted = broken_section(text).partition("accepted break")
        is_open = truth.state == "broken" and truth.accepted is None
        assert (sentence in broken) is is_open, truth.model
        assert (sentence in accepted) is (truth.state == "broken" and not is_open), truth.model


def broken_section(text: str) -> str:
    section = text.partition('id="broken-title"')[2].partition("</section>")[0]
    return re.sub(r"\s+", " ", section)


def cells_of(row: str) -> dict[date, tuple[str, bool]]:
    """Return night -> letter, and whether the cell is framed; without untested nights."""
    found = re.findall(r'<td(?: class="?([a-z ]+)"?)?(?: title="[^"]*")?>([^<\n]*)', row)
    nights = [
        (classes, letter) for classes, letter in found if classes.split()[:1] not in (["n"], ["s"])
    ]
    assert len(nights) == 60
    return {
        night: (letter, "x" in classes.split())
        for night, (classes, letter) in zip(SHOWN, nights, strict=True)
        if letter not in ("", "~", "H", "N")  # where only the host was at fault
    }


def expected_cells(truth: Truth) -> dict[date, tuple[str, bool]]:
    nights = [night for night in truth.verdicts if night in SHOWN]
    works = [truth.verdicts[night] == "ok" for night in nights]
    return {
        night: (
            TRAITS[Verdict(truth.verdicts[night])].letter,
            number > 0 and w is not works[number - 1],
        )
        for number, (night, w) in enumerate(zip(nights, works, strict=True))
    }


def test_the_page_lists_what_broke_and_what_works_again_on_which_night(told: Told) -> None:
    registry, truths = told
    events = {(event.night, event.kind, event.model) for event in board_of(registry).events}
    expected = set()
    for truth in truths:
        tested = list(truth.verdicts)
        for before, night in pairwise(tested):
            one, two = truth.verdicts[before], truth.verdicts[night]
            known = "ok" in [truth.verdicts[n] for n in tested if n < night]
            if night in SHOWN and (one == "ok") is not (two == "ok") and known:
                expected.add((night, "broke" if one == "ok" else "works_again", truth.model))
    assert {event for event in events if event[1] != "accepted"} == expected
