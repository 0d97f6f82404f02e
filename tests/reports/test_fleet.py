"""The data of the fleet overview."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_lmstrix.core.types import Model, Result
from pytest_lmstrix.plan.plan import Plan, planned
from pytest_lmstrix.registry.history.earlier import History
from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.reports.page.fleet import Fleet, MapCell, fleet_of
from pytest_lmstrix.reports.page.plots import METRICS, plot, plot_checks
from pytest_lmstrix.reports.page.render import map_and_plots
from pytest_lmstrix.reports.run_json import CaseReport, RunReport
from tests.registry.results import a_result
from tests.reports.conftest import NOW as FOUND
from tests.reports.conftest import a_run

LLAMA = Model(id="llama", engine="lmstudio", context_limit=131_072)
NOW = (a_result(60_000, "out_of_memory", model="llama", run="now"),)
BEFORE = (
    a_result(30_000, model="llama"),
    a_result(100_000, model="llama"),
    a_result(100_000, model="llama", check="deep"),
)


def cells(tmp_path: Path, *skipped: str) -> dict[tuple[str, int], MapCell]:
    """Cells by check and size."""
    rows = fleet(tmp_path, *skipped).rows
    return {(row.check, size): cell for row in rows for size, cell in row.cells.items()}


def fleet(
    tmp_path: Path, *skipped: str, before: Iterable[Result] = BEFORE, model: Model = LLAMA
) -> Fleet:
    """The fleet of a run that finds `NOW` and skips these tests, after one that found `before`."""
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


def test_cases_not_run_now_show_earlier_results(tmp_path: Path) -> None:
    found = cells(tmp_path)
    assert {key: cell.sign for key, cell in found.items()} == {
        ("full", 30_000): "✓",
        ("full", 60_000): "M",
        ("full", 100_000): "✓",
        ("deep", 100_000): "✓",
    }
    assert [key for key, cell in found.items() if cell.target] == [("full", 60_000)]


def test_a_skipped_case_does_not_show_an_earlier_pass(tmp_path: Path) -> None:
    found = cells(tmp_path, "test_full[llama-100000]")
    skipped = found["full", 100_000]
    assert (skipped.sign, skipped.target is not None) == ("-", True)
    assert skipped.label.splitlines()[:2] == ["skipped at 100,000 tokens", "why"]
    assert skipped.label.splitlines()[2].startswith("ok on ")
    assert found["deep", 100_000].sign == "✓"


def test_a_test_with_a_failed_teardown_keeps_its_verdict(tmp_path: Path) -> None:
    assert cells(tmp_path, "test_full[llama-60000]")["full", 60_000].sign == "M"


def test_the_legend_explains_only_signs_that_occur(tmp_path: Path) -> None:
    meanings = {sign: meaning for sign, _, meaning in fleet(tmp_path).legend}
    assert meanings == {"✓": "ok", "M": "out of memory"}
    ((sign, family, meaning),) = fleet(tmp_path, "test_full[llama-100000]").legend[2:]
    assert (sign, family, meaning) == ("-", "unclear", "skipped, not judged")


@pytest.mark.parametrize(
    "other", [{"machine": "elsewhere"}, {"engine": "llamacpp"}], ids=["machine", "engine"]
)
def test_results_from_elsewhere_are_not_shown(tmp_path: Path, other: dict[str, str]) -> None:
    elsewhere = a_result(100_000, model="llama", **other)
    (row,) = fleet(tmp_path, before=(BEFORE[0], elsewhere)).rows
    assert set(row.cells) == {30_000, 60_000}


def test_results_of_other_weights_are_not_shown(tmp_path: Path) -> None:
    known = replace(LLAMA, fingerprint="size:1")
    others = a_result(100_000, model="llama", fingerprint="size:2")
    (row,) = fleet(tmp_path, before=(BEFORE[0], others), model=known).rows
    assert set(row.cells) == {30_000, 60_000}


def drawn(run: RunReport) -> str:
    """The HTML of map and plots."""
    models = [Model(id=each.id, engine="lmstudio", context_limit=131_072) for each in run.models]
    sizes = [4_096, 8_191, 30_000, 60_000]
    plan = Plan(run="now", seed=1, models=tuple(planned(each, sizes, ()) for each in models))
    fleet = fleet_of(plan, run, History())
    check, passed = plot_checks(fleet.results)
    plots = [svg for metric in METRICS if (svg := plot(metric, check, passed))]
    return map_and_plots(fleet, plots)


def test_the_image_has_a_legend(run: RunReport) -> None:
    legend = re.findall(r"<span><i class=\"lmstrix-(\w+)\">(.)</i> ([\w ]+)</span>", drawn(run))
    assert legend == [
        ("ok", "✓", "ok"),
        ("answer", "W", "wrong answer"),
        ("room", "M", "out of memory"),
        ("unusable", "?", "model not found"),
    ]


def test_the_bar_length_is_the_verified_share_of_the_declared_maximum(run: RunReport) -> None:
    bars = r"lmstrix-share\">([^<]+?) <b aria-hidden=\"true\"><i style=\"width:([^\"]+)\">"
    assert re.findall(bars, drawn(run)) == [
        ("30,000 / 131,072", "22.9%"),
        ("8,191 / 131,072", "6.2%"),
        ("- / 131,072", "0.0%"),
        ("- / 131,072", "0.0%"),
    ]


def test_recall_is_shown_by_depth_and_context(tmp_path: Path) -> None:
    depths = {"0.05": True, "0.5": False, "0.95": True}
    sizes = {8_191: depths, 4_096: dict.fromkeys(depths, True)}
    now = [a_result(size, model="llama", run="now", check="deep", recall=recall)
           for size, recall in sizes.items()]  # fmt: skip
    text = drawn(a_run(Registry(tmp_path / "registry.jsonl"), (*now, FOUND[0])))
    _, _, table = text.partition('<table id="lmstrix-recall">')
    table = table.partition("</table>")[0]
    assert re.findall(r"<th[^>]*>([^<]+)</th>", table) == ["model", "4,096", "8,191", "llama"]
    cells = table.partition("<tbody>")[2].split("<td>")[1:]
    assert [re.findall(r"[●○]", cell) for cell in cells] == [list("●●●"), list("●○●")]
    assert 'aria-label="5% deep: recalled\n50% deep: not recalled\n95% deep: recalled"' in cells[1]


def test_recall_is_not_shown_without_deep_results(tmp_path: Path) -> None:
    text = drawn(a_run(Registry(tmp_path / "registry.jsonl"), FOUND[:1]))
    assert 'id="lmstrix-recall' not in text


PLOTTED = {
    "decode_tokens_per_second": (40.0, "Decode, tokens/s (full)", "llama at 30,000: 40.0"),
    "prefill_tokens_per_second": (900.0, "Prefill, tokens/s (full)", "llama at 30,000: 900.0"),
    "ttft_seconds": (0.25, "Time to first token (full)", "llama at 30,000: 0.25 s"),
    "peak_memory_bytes": (4_100_000_000, "Peak memory (full)", "llama at 30,000: 4.10 GB"),
}


@pytest.mark.parametrize("measure", PLOTTED)
def test_measurements_are_plotted_by_context_size(tmp_path: Path, measure: str) -> None:
    value, title, tooltip = PLOTTED[measure]
    now = a_result(30_000, model="llama", run="now", **{measure: value})
    text = drawn(a_run(Registry(tmp_path / "registry.jsonl"), (now,)))
    (figure,) = re.findall(r"<figure>.*?</figure>", text, re.DOTALL)
    assert f">{title}</text>" in figure
    assert f"<title>{tooltip}</title>" in figure
