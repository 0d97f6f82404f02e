"""What a user sees of `speed`: rates, an update of the engine, a slow-down until it is accepted."""

from __future__ import annotations

import json

import pytest

from tests.end_to_end.project import Project

CONFTEST = """
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio.models.model import StandInModel

def pytest_lmstrix_engines(config):
    engine = FakeEngine((StandInModel(key="tiny", decode_tokens_per_second={speed}),))
    engine.version = {version!r}
    return [engine]
"""


def use(project: Project, version: str, speed: float) -> None:
    project.pytester.makeconftest(CONFTEST.format(version=version, speed=speed))


@pytest.fixture
def updated(project: Project) -> Project:
    """A project whose engine was updated, and decodes at half the speed since."""
    project.manifest("[{id: tiny, contexts: [1024, 2048]}]")
    use(project, "1.9", 50.0)
    for _ in range(2):
        project.run("-m", "speed").assert_outcomes(passed=2)
    use(project, "1.10", 25.0)
    return project


def run_json(project: Project) -> dict[str, object]:
    run: dict[str, object] = json.loads((project.path / "reports" / "run.json").read_text())
    return run


def test_the_registry_has_medians_and_spreads(project: Project) -> None:
    project.manifest("[{id: tiny, contexts: [2048]}]")
    project.run("--lmstrix", "-m", "speed", "-k", "tiny").assert_outcomes(passed=1)
    (line,) = (project.path / "reports" / "registry.jsonl").read_text().splitlines()
    result = json.loads(line)
    assert result["check"] == "speed"
    assert result["decode_tokens_per_second"] == pytest.approx(50.0)
    assert result["prefill_tokens_per_second"] == pytest.approx(2_000.0)
    assert result["decode_tokens"] >= 64
    assert result["prefill_tokens"] == pytest.approx(512, rel=0.05)
    assert 1_300 <= result["speed"].pop("depth") <= 1_344
    assert result["speed"] == {
        "repetitions": 3,
        "prefill_spread": pytest.approx([2_000.0] * 2),
        "decode_spread": pytest.approx([50.0] * 2),
        "empty_prefill_tokens_per_second": pytest.approx(2_000.0),
        "empty_decode_tokens_per_second": pytest.approx(50.0),
        "empty_prefill_spread": pytest.approx([2_000.0] * 2),
        "empty_decode_spread": pytest.approx([50.0] * 2),
        "prefill_clock": "engine",
        "decode_clock": "engine",
    }


def test_without_a_marker_only_full_runs(project: Project) -> None:
    assert [node.partition("[")[0] for node in project.ids("--lmstrix")] == [
        "models.yaml::test_full"
    ] * 2


def test_an_update_is_said_once_and_fails_no_run(updated: Project) -> None:
    result = updated.run("-m", "speed")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["lmstrix: fake updated from 1.9 to 1.10", "tiny*slower decode, tokens/s*50.0*25.0*"]
    )
    summary = (updated.path / "reports" / "summary.md").read_text()
    assert "fake updated from 1.9 to 1.10" in summary.replace("\\", "")
    page = (updated.path / "reports" / "report.html").read_text(encoding="utf-8")
    assert "<p>fake updated from 1.9 to 1.10</p>" in page
    (update,) = run_json(updated)["updates"]
    assert (update["engine"], update["before"], update["after"]) == ("fake", "1.9", "1.10")
    updated.run("-m", "speed").stdout.no_fnmatch_line("*updated from*")


def test_a_slow_down_fails_a_gated_run_until_it_is_accepted(updated: Project) -> None:
    for _ in range(2):
        failed = updated.run("-m", "speed", "--lmstrix-fail-on-regression")
        assert failed.ret == pytest.ExitCode.TESTS_FAILED
        failed.stdout.fnmatch_lines(["tiny*slower decode*", "lmstrix: 1 regression failed this*"])
    assert updated.run("--lmstrix-accept").outlines == ["accepted as it is: tiny"]
    assert updated.run("-m", "speed", "--lmstrix-fail-on-regression").ret == 0
    assert updated.run("--lmstrix-accept").outlines == ["no regression to accept"]


def test_a_context_too_small_for_a_rate_is_skipped_with_the_reason(project: Project) -> None:
    project.manifest("[{id: tiny, contexts: [128]}]")
    result = project.run("-m", "speed", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*a context of 128 tokens is too small for a rate*"])
    assert project.engine_log == []
