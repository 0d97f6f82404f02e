"""A list of load settings tests a model once for each combination."""

from __future__ import annotations

import json

import pytest

from tests.end_to_end.project import Project
from tests.standin.tiny_models import write_tiny_model


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


HEADINGS = ["variant", "estimate", "peak", "verified", "status", "TTFT", "tokens/s"]


def test_the_end_of_a_run_compares_the_variants(varied: Project) -> None:
    lines = varied.run("--lmstrix", "-m", "full").outlines
    start = lines.index("variants of tiny")
    assert lines[start + 1].split() == HEADINGS
    rows = [line.split() for line in lines[start + 2 : start + 4]]
    assert [row[0] for row in rows] == ["f16", "q8_0"]
    assert all({"512", "completed"} <= set(row) for row in rows)
    summary = (varied.path / "reports" / "summary.md").read_text(encoding="utf-8")
    _, _, table = summary.partition("### Variants of tiny\n\n")
    assert table.startswith(f"| {' | '.join(HEADINGS)} |")
    assert "\n| q8\\_0 | " in table
    run = json.loads((varied.path / "reports" / "run.json").read_bytes())
    page = (varied.path / "reports" / "report.html").read_text(encoding="utf-8")
    assert "Variants of tiny" in page
    assert '<th scope="row">q8_0</th>' in page
    (comparison,) = run["variants"]
    assert comparison["model"] == "tiny"
    assert [each["id"] for each in comparison["variants"]] == ["tiny+f16", "tiny+q8_0"]
    assert all(each["verified_context"] == 512 for each in comparison["variants"])


def test_a_variant_is_compared_with_results_of_earlier_runs(varied: Project) -> None:
    varied.run("--lmstrix", "-m", "full", "-k", "f16")
    lines = varied.run("--lmstrix", "-m", "full", "-k", "q8_0").outlines
    start = lines.index("variants of tiny")
    assert all("512" in line for line in lines[start + 2 : start + 4])


def test_a_run_of_models_without_variants_compares_none(project: Project) -> None:
    result = project.run("--lmstrix", "-m", "full")
    assert "variants of" not in result.stdout.str()
    assert "variants" not in json.loads((project.path / "reports" / "run.json").read_bytes())


def test_variants_of_llama_cpp_are_compared_by_their_memory(project: Project) -> None:
    pytest.importorskip("xllamacpp")
    write_tiny_model(project.path / "tiny.gguf", "llama", llama__context_length=131_072)
    project.manifest(
        "[{id: tiny, engine: llamacpp, source: tiny.gguf, contexts: [16384],"
        " load: {kv_cache_type: [f16, q8_0]}}]"
    )
    project.run("--lmstrix", "-m", "full").assert_outcomes(passed=2)
    (comparison,) = json.loads((project.path / "reports" / "run.json").read_bytes())["variants"]
    full, light = comparison["variants"]
    assert full["estimated_memory_bytes"] > light["estimated_memory_bytes"] > 0
    for each in (full, light):
        assert each["peak_memory_bytes"] > 0
        assert each["verified_context"] == 16_384
