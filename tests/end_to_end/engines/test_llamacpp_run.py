"""Whole runs of real models with the embedded engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project
from tests.standin import header_file
from tests.standin.model_files import write_broken, write_whole
from tests.standin.weights import smollm2

SAMPLE = {"mamba", "gpt-oss", "split", "go-template", "not-a-number"}
"""Whole models that are loaded in each run of the tests."""


def manifest(project: Project, *models: tuple[str, Path, int]) -> None:
    entries = "".join(
        f"  - id: {name}\n    source: '{path.as_posix()}'\n    contexts: [{size}]\n"
        for name, path, size in models
    )
    project.pytester.makefile(".yaml", models=f"defaults: {{engine: llamacpp}}\nmodels:\n{entries}")


def test_broken_files_are_xfails_and_the_run_goes_on(project: Project) -> None:
    truncated = project.path / "truncated.gguf"
    truncated.write_bytes(smollm2().read_bytes()[:30_000_000])
    other = project.path / "other.gguf"
    other.write_text("<html>not found</html>\n" * 100, encoding="utf-8")
    manifest(
        project,
        ("truncated", truncated, 512),
        ("other", other, 512),
        ("missing", project.path / "no such.gguf", 512),
        ("good", smollm2(), 512),
    )
    result = project.run("--lmstrix", "-rx")
    result.assert_outcomes(passed=1, xfailed=3)
    assert {r.model: r.verdict for r in project.results} == {
        "truncated": Verdict.CORRUPTED,
        "other": Verdict.CORRUPTED,
        "missing": Verdict.MODEL_NOT_FOUND,
        "good": Verdict.OK,
    }
    for expected in (
        "XFAIL *truncated-512* - corrupted: *",
        "XFAIL *other-512* - corrupted: *",
        "XFAIL *missing-512* - model_not_found: *no such.gguf*",
    ):
        result.stdout.fnmatch_lines([expected])


def test_the_log_of_a_failed_load_is_kept_beside_the_registry_and_named(project: Project) -> None:
    at_odds = "load: {kv_cache_type: q8_0, flash_attention: false}"
    source = smollm2().as_posix()
    entries = (
        f"  - {{id: odd, source: '{source}', contexts: [512], {at_odds}}}\n"
        f"  - {{id: good, source: '{source}', contexts: [512]}}\n"
    )
    project.pytester.makefile(".yaml", models=f"defaults: {{engine: llamacpp}}\nmodels:\n{entries}")
    result = project.run("--lmstrix")
    result.assert_outcomes(passed=1, failed=1)
    logs = sorted((project.path / "reports" / "logs").iterdir())
    assert len(logs) == 2  # of both tries
    assert all("flash_attn" in log.read_text(encoding="utf-8") for log in logs)
    log = logs[-1]
    details = {r.model: r.detail for r in project.results}
    assert details["odd"].endswith(f"\nlog: {log}")
    assert "log: " not in details["good"]
    result.stdout.fnmatch_lines(
        [f"log: {log}", "See the log in the folder `logs` of the reports.*"]
    )


def test_a_context_above_the_trained_one_is_not_granted(project: Project) -> None:
    manifest(project, ("smollm2", smollm2(), 16_384))
    project.run("-m", "fast or full").assert_outcomes(failed=2)
    for result in project.results:
        assert result.verdict is Verdict.CONTEXT_NOT_GRANTED
        assert (result.context_length, result.granted_context_length) == (16_384, 8_192)
        assert "16,384" in result.detail
        assert "8,192" in result.detail


def test_a_real_run_has_plausible_measurements(project: Project) -> None:
    manifest(project, ("smollm2", smollm2(), 2_048))
    project.run("--lmstrix").assert_outcomes(passed=1)
    (result,) = project.results
    assert result.granted_context_length == 2_048
    assert result.peak_memory_bytes is not None
    assert result.peak_memory_bytes > 90_000_000
    assert result.estimated_memory_bytes is not None
    assert 130_000_000 < result.estimated_memory_bytes < 160_000_000
    for figure in (result.load_seconds, result.ttft_seconds):
        assert figure is not None
        assert figure > 0
    assert result.replies[0].strip().startswith("96")
    assert result.fingerprint is not None
    assert "98362432" in result.fingerprint


def test_a_model_larger_than_the_memory_is_skipped_on_request(project: Project) -> None:
    huge = header_file.write_huge_llama(project.path / "huge.gguf")
    manifest(project, ("huge", huge, 512), ("smollm2", smollm2(), 512))
    result = project.run("--lmstrix", "--lmstrix-skip-unfit", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * does not fit: needs ???,??? MiB, * MiB free"])
    assert [each.model for each in project.results] == ["smollm2"]


def test_two_workers_run_all_models(project: Project) -> None:
    manifest(project, ("one", smollm2(), 512), ("two", smollm2(), 512))
    project.run_apart("--lmstrix", "-n", "2").assert_outcomes(passed=2)
    assert {r.model for r in project.results} == {"one", "two"}


@pytest.mark.parametrize("all", [False, pytest.param(True, marks=pytest.mark.long)])
def test_every_file_gets_its_right_verdict(project: Project, all: bool) -> None:
    whole, broken = list(write_whole(project.path)), list(write_broken(project.path))
    if not all:
        whole = [file for file in whole if file.id in SAMPLE]
        assert len(whole) == len(SAMPLE)
    files = [*whole, *broken]
    manifest(project, *((file.id, file.path, 512) for file in files))
    project.run("-m", "full")
    results = {result.model: result for result in project.results}
    assert {id: result.verdict for id, result in results.items()} == {
        file.id: file.verdict for file in files
    }
    for file in files:
        assert file.words in results[file.id].detail
    assert results["not-a-number"].notes == (
        "repeats one token throughout ('G'): its weights may be damaged",
    )
