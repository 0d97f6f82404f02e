"""The checks of the plugin on a real model, up to and above its trained context."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("xllamacpp")

from pytest_lmstrix.core.types import Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from pytest_lmstrix.plan import build
from tests.end_to_end.project import Project
from tests.standin import weights

TRAINED = 8_192
"""The trained context of the model in tokens; llama.cpp's server grants no more."""
SIZES = (1_024, 2_048)
ALL_SIZES = pytest.param((*SIZES, 4_096, TRAINED), marks=pytest.mark.long)
"""The controls of all sizes are a larger share of a small context."""
UNTRUE = {"tools": "failed", "vision": "failed", "thinking": "failed"}
"""What is not true of this model."""


class Meter:
    """Records every load and every reply of the engine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads: list[int] = []
        self.replies: list[Reply] = []
        load, complete = LlamaCppEngine.load, LlamaCppInstance.complete

        def noted_load(engine: Any, model: Any, size: int, progress: Any) -> Any:
            self.loads.append(size)
            return load(engine, model, size, progress)

        def noted_complete(instance: Any, prompt: str, **more: Any) -> Reply:
            self.replies.append(complete(instance, prompt, **more))
            return self.replies[-1]

        monkeypatch.setattr(LlamaCppEngine, "load", noted_load)
        monkeypatch.setattr(LlamaCppInstance, "complete", noted_complete)

    @property
    def prefilled(self) -> int:
        """Prompt tokens by the engine's counters, without cached ones."""
        return sum((r.prompt_tokens or 0) - (r.cached_prompt_tokens or 0) for r in self.replies)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    return Meter(monkeypatch)


def manifest(project: Project, contexts: Sequence[int], declared: int) -> None:
    project.manifest(
        f"[{{id: smollm2, engine: llamacpp, source: '{weights.smollm2()}',"
        f" context_limit: {declared}, contexts: {list(contexts)}}}]"
    )


@pytest.mark.parametrize("sizes", [SIZES, ALL_SIZES])
def test_deep_at_all_sizes_takes_one_load_and_one_prefill(
    project: Project, meter: Meter, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]
) -> None:
    # So small a model sometimes confuses facts: a fixed text keeps the test deterministic.
    monkeypatch.setattr(build.secrets, "randbits", lambda bits: 1)
    manifest(project, sizes, TRAINED)
    project.run("--lmstrix", "-m", "deep").assert_outcomes(passed=len(sizes))
    assert meter.loads == [sizes[-1]]
    assert all(reply.cached_prompt_tokens is not None for reply in meter.replies)
    assert meter.prefilled <= (1.1 if sizes[-1] == TRAINED else 1.2) * sizes[-1]
    for size, result in zip(sizes, project.results, strict=True):
        assert result.context_length == size
        assert result.recall == dict.fromkeys(("0.05", "0.25", "0.5", "0.75", "0.95"), True)
        assert 0.98 * (size - 12) <= (result.prompt_tokens or 0) <= size - 12
        assert result.seed is not None


@pytest.mark.parametrize("declared", [TRAINED, pytest.param(2 * TRAINED, marks=pytest.mark.long)])
def test_a_context_above_the_trained_one_never_passes(
    project: Project, meter: Meter, declared: int
) -> None:
    manifest(project, [2 * TRAINED], declared)
    project.run("-m", "fast or full or deep").assert_outcomes(failed=3)
    first = project.results
    (project.path / "reports" / "registry.jsonl").unlink()
    project.run("-m", "limit").assert_outcomes(passed=1)
    found, *others = project.results
    asked = [r for r in (*first, *others) if r.context_length == 2 * TRAINED]
    checks = ["fast", "full", "deep"]
    assert [r.check for r in asked] == checks + ["limit"] * (declared > TRAINED)
    for result in asked:
        assert result.verdict is Verdict.CONTEXT_NOT_GRANTED
        assert result.granted_context_length == TRAINED
        assert "asked for 16,384 tokens of context, granted 8,192" in result.detail
    assert found.detail == f"works up to {found.context_length:,} of {declared:,} tokens"
    assert TRAINED - 256 <= found.context_length <= TRAINED
    assert all(r.context_length <= TRAINED for r in others if r.verdict is Verdict.OK)


def test_the_granted_context_is_the_working_size(project: Project, meter: Meter) -> None:
    manifest(project, [12_000], 2 * TRAINED)
    result = project.run("--lmstrix")
    result.assert_outcomes(failed=1)
    assert meter.loads == [12_000, TRAINED]
    assert project.results[0].detail.startswith("fails at 12,000; works at 8,192\n")
    result.stdout.fnmatch_lines(["*fails at 12,000; works at 8,192*"])


def test_a_schema_is_proven_and_nothing_else_is_claimed(project: Project) -> None:
    manifest(project, [TRAINED], TRAINED)
    project.run("-m", "capability").assert_outcomes(passed=1)
    (result,) = project.results
    assert result.capabilities == {"schema": "proven"}
    assert {"weather", "is_certain"} == json.loads(result.replies[0]).keys()
    project.manifest(
        f"[{{id: smollm2, engine: llamacpp, source: '{weights.smollm2()}', contexts: [4096],"
        " capabilities: [tools, thinking, vision]}]"
    )
    project.run("-m", "capability").assert_outcomes(failed=1)
    assert project.results[-1].capabilities == {"schema": "proven", **UNTRUE}
    assert "refused: images need the projector" in project.results[-1].detail
