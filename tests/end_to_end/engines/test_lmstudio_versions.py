"""Whole runs against servers of several versions, as a person sees them."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.manifest.read import read_manifest
from tests.end_to_end.project import Project
from tests.standin.lmstudio import (
    GrantsAtMost,
    GrantsMore,
    LmStudioServer,
    Reasons,
    SharesContext,
    StandInModel,
)

MLX = StandInModel(key="apple", format="safetensors", behaviours=(GrantsMore(at_least=131_072),))


def manifest(project: Project, entry: str) -> None:
    project.pytester.makefile(".yaml", models=f"models: [{entry}]\n")


def run(project: Project, server: LmStudioServer, *args: str) -> pytest.RunResult:
    return project.run("--lmstrix", "--all", "--lmstrix-host", f"http://{server.host}/v1", *args)


def test_a_model_that_is_granted_more_passes_at_every_size_in_one_load(project: Project) -> None:
    manifest(project, "{id: apple, contexts: [4096, 8192, 60000]}")
    with LmStudioServer([MLX], version="0.4.24") as server:
        run(project, server).assert_outcomes(passed=3)
        assert len(server.loads()) == 1
    assert {result.granted_context_length for result in project.results} == {131_072}
    note = "larger context: granted 131,072 tokens, asked for 4,096"
    assert [result.notes for result in project.results] == [(note,)] * 3


def test_a_setting_that_is_not_taken_is_noted_and_not_recorded(project: Project) -> None:
    manifest(project, "{id: apple, contexts: [4096], load: {flash_attention: true}}")
    with LmStudioServer([StandInModel(key="apple", format="safetensors")]) as server:
        run(project, server).assert_outcomes(passed=1)
    (result,) = project.results
    assert result.settings == ""
    assert result.notes == ("settings: LM Studio did not apply flash_attention",)


def test_slots_that_share_the_context_are_named(project: Project) -> None:
    manifest(project, "{id: tiny, contexts: [4095, 8192]}")
    shared = StandInModel(key="tiny", behaviours=(SharesContext(slots=4),))
    with LmStudioServer([shared], version="0.4.12") as server:
        run(project, server, "-m", "deep").assert_outcomes(failed=2)
    assert {result.verdict for result in project.results} == {Verdict.CONTEXT_NOT_GRANTED}
    assert all("(one of 4 slots)" in result.detail for result in project.results)


def test_what_requests_at_once_really_get_is_found_out(project: Project) -> None:
    manifest(project, "{id: tiny, contexts: [8192], load: {parallel: 4}}")
    small = StandInModel(key="tiny", behaviours=(GrantsAtMost(tokens=16_384),))
    with LmStudioServer([small], version="0.4.24") as server:
        result = run(project, server, "-m", "deep")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*fails at 8,192; works at 4,096*"])
    failed, works = project.results
    assert failed.verdict is Verdict.CONTEXT_NOT_GRANTED
    assert "4 requests at once get 4,096 of 8,192 tokens each" in failed.detail
    assert (works.verdict, works.context_length, works.settings) == (
        Verdict.OK, 4096, '{"parallel":4}'
    )  # fmt: skip


def test_a_refused_token_is_said_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest(project, "{id: a, contexts: [512]}, {id: b, contexts: [512]}")
    monkeypatch.setenv("LM_API_TOKEN", "sk-lm-WRONGKEY:abcdefghij0123456789")
    models = [StandInModel(key="a"), StandInModel(key="b")]
    with LmStudioServer(models, api_tokens=["ABCDEFGH:abcdefghij0123456789"]) as server:
        result = run(project, server)
    shown = result.stdout.str() + result.stderr.str()
    assert "refused the API token in LM_API_TOKEN" in shown
    assert "abcdefghij0123456789" not in shown
    assert "Start the server" not in shown
    result.assert_outcomes(errors=1, skipped=1)


def test_a_thinking_model_is_judged_by_its_answer(project: Project) -> None:
    manifest(project, "{id: tiny, contexts: [8192], prompts: chat, answer_tokens: 64}")
    thinker = StandInModel(key="tiny", behaviours=(Reasons(tokens=2_500, can_refrain=True),))
    with LmStudioServer([thinker], version="0.4.24") as server:
        run(project, server).assert_outcomes(passed=1)


VARIANTS = (
    StandInModel(key="qwen@q4_k_m", quantization="Q4_K_M"),
    StandInModel(key="qwen@q8_0", quantization="Q8_0"),
)


def test_the_scan_lists_the_variants_of_a_model(project: Project) -> None:
    (project.path / "models.yaml").unlink()
    with LmStudioServer([StandInModel(key="qwen", variants=VARIANTS)], version="0.4.24") as server:
        project.run("--lmstrix-scan", "--lmstrix-engine=lmstudio", f"--lmstrix-host={server.host}")
    listed = [model.id for model in read_manifest(project.path / "models.yaml")]
    assert listed == ["qwen", "qwen@q4_k_m", "qwen@q8_0", "tiny"]


def test_each_variant_can_be_tested(project: Project) -> None:
    manifest(project, "{id: qwen@q8_0, contexts: [512]}, {id: qwen@q4_k_m, contexts: [512]}")
    with LmStudioServer([StandInModel(key="qwen", variants=VARIANTS)], version="0.4.24") as server:
        run(project, server).assert_outcomes(passed=2)
    assert {call.model_key for call in server.loads()} == {"qwen@q4_k_m", "qwen@q8_0"}
