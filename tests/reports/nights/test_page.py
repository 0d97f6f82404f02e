"""The page of nights: escaped, one file without network, by night, host and model."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

from pytest_lmstrix.core.types import Acceptance, Result
from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.reports.nights.board import Board, board_of
from pytest_lmstrix.reports.nights.page import page
from tests.registry.results import a_result

MADE = datetime(2026, 10, 31, 6, tzinfo=UTC)
HOSTILE = (
    "</div></script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\" '\x1b["
)


def night(number: int, model: str, verdict: str = "ok", **fields: object) -> Result:
    """Return a result `number` nights before the page was made."""
    at = MADE - timedelta(days=number, hours=3)
    of_night: dict[str, object] = {
        "model": model,
        "run": f"r{number}",
        "at": at,
        "machine": "here",
        "engine_version": f"1.{60 - number}",
    }
    return a_result(8192, verdict, **of_night | fields)


def page_of(path: Path, results: list[Result], accepted: tuple[Acceptance, ...] = ()) -> str:
    registry = Registry(path / "registry.jsonl")
    registry.append_many(results)
    registry.accept(accepted)
    return page(board_of(registry), made=MADE, links=("report.html",))


def test_hostile_text_is_escaped(tmp_path: Path) -> None:
    fields = {"host": f"{HOSTILE}:1", "engine": HOSTILE, "engine_version": HOSTILE,
              "check": HOSTILE, "settings": HOSTILE}  # fmt: skip
    results = [night(2, HOSTILE, **fields), night(1, HOSTILE, "crashed", **fields)]
    accepted = Acceptance(at=MADE, by=HOSTILE, model=HOSTILE)
    text = page_of(tmp_path, [*results, night(1, HOSTILE)], (accepted,))
    assert "onerror" in text, "the names are there"
    assert text.count("<script") == 1
    assert "<img" not in text
    assert "\x1b" not in text
    assert 'window.hacked=1>"' not in text


class _Tags(HTMLParser):
    """Collects the tags, and the attributes that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str | None] = []
        self.ids: list[str | None] = []
        self.labels: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "srcset", "data", "action") or (name, tag) == ("href", "link"):
                self.loads.append(value)
            if name == "id":
                self.ids.append(value)
            if name == "aria-labelledby":
                self.labels.append(value)


def test_the_page_is_one_file_without_network(tmp_path: Path) -> None:
    text = page_of(tmp_path, [night(1, "m"), night(0, "m", "crashed")])
    tags = _Tags()
    tags.feed(text)
    assert tags.loads == ["data:,"]
    assert "http" not in text.replace("http-equiv", "")
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|import\(", text)
    assert len(tags.ids) == len(set(tags.ids))
    assert set(tags.labels) <= set(tags.ids)
    assert "default-src 'none'" in text


def test_an_update_that_breaks_many_models_is_one_line(tmp_path: Path) -> None:
    models = [f"m{n}" for n in range(12)]
    results = [night(n, m, "guardrail_refused" if n == 0 else "ok") for n in (1, 0) for m in models]
    text = page_of(tmp_path, results)
    assert "0 of 12 tested models work, 12 broke" in text
    assert "<b>12 models broke</b>, lmstudio 1.60, 1.59 before: guardrail refused" in text
    assert text.count("Worked with 1.59, broken since 1.60 (31 Oct)") == 1


def test_hosts_are_counted_apart(tmp_path: Path) -> None:
    results = [night(0, "a"), night(0, "b", "crashed"), night(0, "c", host="studio:1234"),
               night(1, "c", host="studio:1234")]  # fmt: skip
    board = board_of_results(tmp_path, results)
    tallies = {place.host: [(t.works, t.tested) if t else None for t in place.tallies]
               for place in board.places}  # fmt: skip
    assert tallies == {"": [(1, 2), None], "studio:1234": [(1, 1), (1, 1)]}


def test_a_model_on_two_hosts_has_two_rows(tmp_path: Path) -> None:
    results = [night(0, "a", "crashed"), night(0, "a", host="studio:1234")]
    rows = board_of_results(tmp_path, results).models
    assert [(row.model, row.place.host, row.newest.letter) for row in rows] == [
        ("a", "", "X"),
        ("a", "studio:1234", "✓"),
    ]
    text = page_of(tmp_path / "again", results)
    assert "<small>lmstudio, studio:1234</small>" in text


def test_a_run_past_midnight_is_one_night(tmp_path: Path) -> None:
    late = MADE.replace(hour=23, minute=58)
    results = [night(0, "a", at=late), night(0, "b", at=late + timedelta(minutes=5))]
    assert [str(each) for each in board_of_results(tmp_path, results).nights] == ["2026-10-31"]


def board_of_results(path: Path, results: list[Result]) -> Board:
    registry = Registry(path / "registry.jsonl")
    registry.append_many(results)
    return board_of(registry)


def test_imported_results_are_not_nights(tmp_path: Path) -> None:
    assert board_of_results(tmp_path, [night(0, "a", imported=True)]).nights == ()
