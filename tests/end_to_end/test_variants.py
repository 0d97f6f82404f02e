"""A list of load settings tests a model once for each combination."""

from __future__ import annotations

import pytest

from tests.end_to_end.project import Project


@pytest.fixture
def varied(project: Project) -> Project:
    project.manifest("[{id: tiny, contexts: [512], load: {kv_cache_type: [f16, q8_0]}}]")
    return project


def test_each_variant_has_results_of_its_own(varied: Project) -> None:
    varied.run("--lmstrix", "-m", "fast").assert_outcomes(passed=2)
    found = {result.model: result.settings for result in varied.results}
    assert found == {"tiny+f16": '{"kv_cache_type":"f16"}', "tiny+q8_0": '{"kv_cache_type":"q8_0"}'}


def test_a_second_run_tests_no_variant_again(varied: Project) -> None:
    varied.run("--lmstrix", "-m", "fast").assert_outcomes(passed=2)
    loads = varied.engine_log
    varied.run("--lmstrix", "-m", "fast")
    assert varied.engine_log == loads


def test_k_selects_variants(varied: Project) -> None:
    assert varied.ids("--lmstrix", "-m", "fast", "-k", "q8_0") == [
        "models.yaml::test_fast[tiny+q8_0-512]"
    ]
    assert len(varied.ids("--lmstrix", "-m", "fast", "-k", "tiny")) == 2


def test_the_list_compares_the_variants(varied: Project) -> None:
    varied.run("--lmstrix", "-m", "fast or full")
    lines = varied.run("--lmstrix-list", "id").outlines
    start = lines.index("variants of tiny")
    assert lines[start + 1].split() == [
        "variant", "estimate", "peak", "verified", "status", "TTFT", "tokens/s",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[start + 2 :]] == ["f16", "q8_0"]
    assert all("512" in line and "completed" in line for line in lines[start + 2 :])
    markdown = varied.run("--lmstrix-list", "--lmstrix-format=md").outlines
    assert "Variants of tiny" in markdown
    assert markdown[-1].startswith("| q8\\_0 | - | ")


def test_a_scan_knows_the_model_of_the_variants(varied: Project) -> None:
    before = (varied.path / "models.yaml").read_bytes()
    result = varied.run("--lmstrix-scan")
    assert "tiny" not in result.stdout.str()
    assert (varied.path / "models.yaml").read_bytes() == before
