"""Whole runs of `full`, `deep` and `limit` with the unmodified SDK, and their output."""

from __future__ import annotations

import json
import time

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project
from tests.standin.lmstudio import (
    Corrupted,
    CutsPrompt,
    GrantsAtMost,
    Guardrail,
    LmStudioServer,
    OutOfMemory,
    SeesLast,
    StandInModel,
)
from tests.standin.lmstudio.models.behaviours import AnyBehaviour

FLEET: dict[str, tuple[AnyBehaviour, ...]] = {
    "healthy": (),
    "big": (OutOfMemory(above=50_000),),
    "guarded": (Guardrail(above=50_000),),
    "capped": (GrantsAtMost(tokens=32_768),),
    "corrupted": (Corrupted(),),
}


def run(
    project: Project, behaviours: dict[str, tuple[AnyBehaviour, ...]], sizes: str, *args: str
) -> tuple[pytest.RunResult, LmStudioServer]:
    models = [StandInModel(key=key, behaviours=how) for key, how in behaviours.items()]
    entries = ", ".join(f"{{id: {key}, contexts: {sizes}}}" for key in behaviours)
    project.pytester.makefile(".yaml", models=f"models: [{entries}]\n")
    with LmStudioServer(models) as server:
        result = project.run("--lmstrix-host", server.host, "-rsf", *args)
        assert server.loaded() == ()
    assert server.violations == []
    return result, server


def test_full_reports_the_working_size_and_skips_larger_ones(project: Project) -> None:
    result, _ = run(project, FLEET, "[40000, 60000, 80000]", "--lmstrix")
    result.assert_outcomes(passed=3 + 1 + 1 + 0, failed=3, skipped=1 + 1 + 2, xfailed=3)
    failed = [r for r in project.results if r.outcome == "failed" and r.origin == "case"]
    assert {r.model: r.detail.splitlines()[0] for r in failed} == {
        "big": "fails at 60,000; works at 48,600",
        "guarded": "fails at 60,000; works at 48,600",
        "capped": "fails at 40,000; works at 32,768",
    }
    result.stdout.fnmatch_lines_random(
        ["*fails at 60,000; works at 48,600*", "SKIPPED*fails at 40,000; works at 32,768*"]
    )
    judged = {(r.model, r.check, r.context_length): r.origin for r in project.results}
    assert ("big", "full", 80_000) not in judged
    assert judged["big", "full", 48_600] == "search"


def test_deep_distinguishes_healthy_forgetful_and_truncating_models(project: Project) -> None:
    fleet: dict[str, tuple[AnyBehaviour, ...]] = {
        "healthy": (),
        "forgetful": (SeesLast(tokens=1_500),),
        "cutting": (CutsPrompt(tokens=1_500),),
    }
    result, server = run(project, fleet, "[1024, 4095]", "-m", "deep")
    result.assert_outcomes(passed=4, failed=2)
    found = {(r.model, r.context_length): r for r in project.results}
    assert found["healthy", 4_095].recall == dict.fromkeys(
        ("0.05", "0.25", "0.5", "0.75", "0.95"), True
    )
    forgetful, cutting = found["forgetful", 4_095], found["cutting", 4_095]
    assert forgetful.verdict is Verdict.RECALL_FAILED
    assert forgetful.detail == "does not recall what is hidden at a depth of 5%, 25%, 50%"
    assert forgetful.recall == {
        "0.05": False, "0.25": False, "0.5": False, "0.75": True, "0.95": True
    }  # fmt: skip
    assert cutting.verdict is Verdict.PROMPT_TRUNCATED
    assert cutting.detail.endswith("prompt tokens, 1,501 arrived")
    assert len({r.seed for r in project.results}) == 1
    healthy = [call for call in server.predictions() if call.model_key == "healthy"]
    assert sum((c.prompt_tokens or 0) - (c.cached_tokens or 0) for c in healthy) <= 1.1 * 4_095
    assert len([call for call in server.loads() if call.model_key == "healthy"]) == 1


def test_deep_at_three_sizes_takes_one_load(project: Project) -> None:
    project.manifest("[{id: tiny, contexts: [1024, 2048, 4095]}]")
    project.run("-m", "deep").assert_outcomes(passed=3)
    assert project.engine_log == ["load tiny 4095", "unload tiny"]


def test_the_tiers_of_deep_are_shown_and_recorded(project: Project) -> None:
    project.manifest("[{id: tiny, contexts: [6000]}]")
    run = project.run("-m", "deep")
    run.assert_outcomes(passed=1)
    text = "tiny, deep: reach 6,000, resist 6,000, follow 6,000"
    run.stdout.fnmatch_lines([text])
    assert [result.tiers for result in project.results] == [{"resist": True, "follow": True}]
    reports = project.path / "reports"
    assert text in (reports / "summary.md").read_text()
    assert text.partition("deep: ")[2] in (reports / "report.html").read_text()
    (model,) = json.loads((reports / "run.json").read_text())["models"]
    assert model["tiers"] == {"reach": 6_000, "resist": 6_000, "follow": 6_000}
    project.run("--lmstrix-list").stdout.fnmatch_lines([text])


def test_deep_and_limit_run_after_checks_that_share_loads(project: Project) -> None:
    project.manifest("[{id: tiny, contexts: [1024, 2048], context_limit: 4096}]")
    project.run("-m", "fast or full or deep or limit").assert_outcomes(passed=7)
    judged = [(r.check, r.context_length) for r in project.results]
    assert [size for _, size in judged] == [1_024, 1_024, 2_048, 2_048, 1_024, 2_048, 4_096]
    assert [check for check, _ in judged[4:]] == ["deep", "deep", "limit"]


def test_the_configured_pause_follows_each_unload(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    project.run("--lmstrix", "--lmstrix-cooldown=2.5").assert_outcomes(passed=2)
    assert pauses.count(2.5) == len([line for line in project.engine_log if "unload" in line]) == 2


def test_deep_loads_no_size_larger_than_those_of_the_run(project: Project) -> None:
    project.manifest("[{id: tiny, contexts: [1024, 2048]}]")
    project.engine(tiny="behaviours=(SeesLast(tokens=500),)")
    project.run("-m", "deep", "--lmstrix-ctx", "1024").assert_outcomes(failed=1)
    project.engine(tiny="")
    before = len(project.engine_log)
    project.run("-m", "deep", "--lf").assert_outcomes(passed=1)
    assert project.engine_log[before:] == ["load tiny 1024", "unload tiny"]


def test_limit_finds_and_records_the_largest_size(project: Project) -> None:
    result, server = run(project, FLEET, "[40000]", "-m", "limit")
    result.assert_outcomes(passed=4, xfailed=1)
    found = {r.model: r.context_length for r in project.results if r.detail.startswith("works up")}
    assert found["healthy"] == 131_072
    for model, truth in {"big": 50_000, "guarded": 50_000, "capped": 32_768}.items():
        assert found[model] <= truth <= found[model] + 500
    rows = {line.split()[0]: line for line in result.outlines if line.strip()}
    for model, size in found.items():
        assert f"  ok, {size:,}  " in rows[model]
    loads = {(call.model_key, call.context_length) for call in server.loads()}
    assert loads == {(r.model, r.context_length) for r in project.results}


def test_checks_run_under_xdist(project: Project) -> None:
    models = {key: FLEET[key] for key in ("healthy", "big")}
    args = ("-n", "2", "-p", "no:cacheprovider", "-m", "full or limit")
    result, _ = run(project, models, "[40000, 60000, 80000]", *args)
    result.assert_outcomes(passed=3 + 1 + 1 + 1, failed=1, skipped=1)
    found = {r.model: r.context_length for r in project.results if r.detail.startswith("works up")}
    assert found["healthy"] == 131_072
    assert 49_500 <= found["big"] <= 50_000


@pytest.mark.parametrize(
    ("declared", "largest"),
    [(2**31, 2**31 - 1), (10_485_760, 10_485_760), (0, 120_000), (-1, 120_000)],
)
def test_an_invalid_declared_maximum_does_not_end_the_run(
    project: Project, declared: int, largest: int
) -> None:
    project.engine(scout=f"max_context_length={declared}", tiny="")
    project.manifest("[{id: scout}, {id: tiny, contexts: [512]}]")
    sizes = [30_000, 40_000, 60_000, 80_000, 100_000, 120_000]
    sizes += [largest - 1] if largest > 120_000 else []
    result = project.run("-m", "full or limit")
    result.assert_outcomes(passed=len(sizes) + 1 + 2)
    found = {(r.check, r.context_length) for r in project.results if r.model == "scout"}
    assert found == {*(("full", size) for size in sizes), ("limit", largest)}
