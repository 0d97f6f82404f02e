"""The picture of the fleet as data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from pytest_lmstrix.plan import Plan, planned
from pytest_lmstrix.registry import Registry
from pytest_lmstrix.regressions import History
from pytest_lmstrix.reporting.fleet import Cell, Fleet, fleet_of
from pytest_lmstrix.reporting.run import CaseReport
from pytest_lmstrix.types import Model, Result
from tests.reporting.conftest import a_run
from tests.unit.registry_results import a_result

LLAMA = Model(id="llama", engine="lmstudio", context_limit=131_072)
NOW = (a_result(60_000, "out_of_memory", model="llama", run="now"),)
BEFORE = (
    a_result(30_000, model="llama"),
    a_result(100_000, model="llama"),
    a_result(100_000, model="llama", check="deep"),
)


def cells(tmp_path: Path, *skipped: str) -> dict[tuple[str, int], Cell]:
    """By check and size."""
    rows = fleet(tmp_path, *skipped).rows
    return {(row.check, size): cell for row in rows for size, cell in row.cells.items()}


def fleet(
    tmp_path: Path, *skipped: str, before: Iterable[Result] = BEFORE, model: Model = LLAMA
) -> Fleet:
    """Of a run that finds `NOW` and skips these tests, after one that found `before`."""
    run = a_run(Registry(tmp_path / "registry.jsonl"), NOW)
    cases = (
        CaseReport(node_id=f"models.yaml::{test}", outcome="skipped", reason="why", results=())
        for test in skipped
    )
    run = replace(run, cases=(*run.cases, *cases))
    history = History()
    for old in before:
        history.add(replace(old, machine=old.machine or run.machine))
    plan = Plan(run="now", seed=1, models=(planned(model, [30_000, 60_000, 100_000], ()),))
    return fleet_of(plan, run, history)


def test_what_was_not_asked_now_is_as_an_earlier_run_found_it(tmp_path: Path) -> None:
    found = cells(tmp_path)
    assert {key: cell.sign for key, cell in found.items()} == {
        ("full", 30_000): "✓",
        ("full", 60_000): "M",
        ("full", 100_000): "✓",
        ("deep", 100_000): "✓",
    }
    assert [key for key, cell in found.items() if cell.target] == [("full", 60_000)]


def test_what_was_skipped_now_is_no_pass_of_an_earlier_run(tmp_path: Path) -> None:
    found = cells(tmp_path, "test_full[llama-100000]")
    skipped = found["full", 100_000]
    assert (skipped.sign, skipped.target is not None) == ("-", True)
    assert skipped.label.splitlines()[:2] == ["skipped at 100,000 tokens", "why"]
    assert skipped.label.splitlines()[2].startswith("ok on ")
    assert found["deep", 100_000].sign == "✓"


def test_a_test_whose_teardown_failed_was_judged_all_the_same(tmp_path: Path) -> None:
    assert cells(tmp_path, "test_full[llama-60000]")["full", 60_000].sign == "M"


def test_the_legend_explains_what_occurs_and_nothing_else(tmp_path: Path) -> None:
    meanings = {sign: meaning for sign, _, meaning in fleet(tmp_path).legend}
    assert meanings == {"✓": "ok", "M": "out of memory"}
    ((sign, family, meaning),) = fleet(tmp_path, "test_full[llama-100000]").legend[2:]
    assert (sign, family, meaning) == ("-", "unclear", "skipped, not judged")
