"""`--lmstrix-fit` of models of LM Studio whose files are not here: LM Studio's own estimates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_lmstrix.engines.lmstudio import engine
from tests.end_to_end.project import Project
from tests.standin.lmstudio import LmStudioServer, StandInModel

GB = 10**9
MODELS = (
    StandInModel(key="near", size_bytes=2 * GB, bytes_per_token=100_000, max_context_length=32_768),
    StandInModel(key="huge", size_bytes=90 * GB, max_context_length=8_192),
    StandInModel(key="mlx", format="safetensors", size_bytes=GB, max_context_length=4_096),
)


@pytest.fixture
def studio() -> Iterator[LmStudioServer]:
    with LmStudioServer(MODELS, memory_bytes=4 * GB, estimates=True) as server:
        yield server


def rows(project: Project, server: LmStudioServer, *args: str) -> list[dict[str, Any]]:
    host = f"--lmstrix-host={server.host}"
    result = project.run("--lmstrix-fit", "--lmstrix-format=json", host, *args)
    assert result.ret == 0, result.stderr.str()
    models: list[dict[str, Any]] = json.loads(result.stdout.str())["models"]
    return models


def test_lm_studio_estimates_what_is_not_on_this_machine(
    project: Project, studio: LmStudioServer
) -> None:
    project.manifest("[{id: near, engine: lmstudio, contexts: [4096, 30000]}]")
    found = rows(project, studio)
    f16 = [row for row in found if row["kv_cache_type"] == "f16"]
    assert {row["source"] for row in found} == {"engine"}
    assert [(row["context_length"], row["fits"]) for row in f16] == [
        (4096, True), (19_968, True), (30_000, False),
    ]  # fmt: skip
    (device,) = f16[0]["devices"]
    assert device == {
        "name": "Host",
        "weights_bytes": 2 * GB,
        "kv_cache_bytes": 409_600_000,
        "compute_bytes": 0,
        "total_bytes": 2_409_600_000,
        "free_bytes": None,
    }
    assert f16[0]["total_bytes"] == 2_409_600_000


def test_nothing_is_loaded_for_an_estimate(project: Project, studio: LmStudioServer) -> None:
    project.manifest("[{id: near, engine: lmstudio}]")
    rows(project, studio)
    assert studio.loads() == []
    assert studio.named("estimateModelUsage")
    assert studio.violations == []


def test_the_table_names_the_source_of_the_estimate(
    project: Project, studio: LmStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    project.manifest(
        "[{id: huge, engine: lmstudio, contexts: [4096]}, {id: mlx, engine: lmstudio}]"
    )
    result = project.run("--lmstrix-fit", f"--lmstrix-host={studio.host}")
    result.stdout.fnmatch_lines(
        [
            "huge *4,096 *f16 * Host (LM Studio) * 85,8* -  no",
            "mlx *4,096 (largest)  f16 * Host (LM Studio) * -  yes",
            "huge with f16: fits at no context length",
            "LM Studio itself estimated 2 models, and decides what fits",
        ]
    )


def test_an_lm_studio_without_estimates_is_requested_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ESTIMATE_SECONDS", 0.3)
    project.manifest("[{id: near, engine: lmstudio}, {id: mlx, engine: lmstudio}]")
    with LmStudioServer(MODELS) as server:
        found = rows(project, server)
        assert len([each for each in server.violations if "estimate" in each.problem]) == 1
    assert {(row["source"], row["fits"]) for row in found} == {("none", None)}


def test_a_model_that_lm_studio_does_not_list_has_the_reason(
    project: Project, studio: LmStudioServer
) -> None:
    project.manifest("[{id: gone, engine: lmstudio}]")
    result = project.run("--lmstrix-fit", f"--lmstrix-host={studio.host}")
    result.stdout.fnmatch_lines(["gone: not reported: LM Studio does not list it"])


def test_hosts_of_other_engines_are_not_requested_for_lm_studio(
    project: Project, studio: LmStudioServer
) -> None:
    project.manifest("[{id: mlx, engine: lmstudio}]")
    found = rows(project, studio, "--lmstrix-host=ollama://127.0.0.1:1")
    assert {row["source"] for row in found} == {"engine"}
