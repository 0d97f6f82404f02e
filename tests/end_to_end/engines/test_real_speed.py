"""`speed` on a real model: its rates are those of llama.cpp, and of a stopwatch, within 5 %."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from msgspec import Struct

pytest.importorskip("xllamacpp")

from pytest_lmstrix.core.types import Reply, Result
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from pytest_lmstrix.probes.speed import REPETITIONS
from pytest_lmstrix.probes.speed_text import DECODE_TOKENS
from tests.end_to_end.project import Project
from tests.standin import weights

pytestmark = pytest.mark.long

SIZES = (1_024,)
EARLIER = "2026.9.11063"
"""An earlier release of xllamacpp in the package index."""
WITHIN = 0.05


class Timed(Struct, frozen=True):
    """One request: the timings in llama.cpp's last event, and those of a stopwatch."""

    timings: Any
    reply: Reply
    seconds: float

    @property
    def prefill_by_hand(self) -> float:
        fresh = (self.reply.prompt_tokens or 0) - (self.reply.cached_prompt_tokens or 0)
        return fresh / (self.reply.ttft_seconds or 0)

    @property
    def decode_by_hand(self) -> float:
        return (DECODE_TOKENS - 1) / (self.seconds - (self.reply.ttft_seconds or 0))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Timed]:
    """Every request of the instance, as it ends."""
    found: list[Timed] = []
    last: list[Any] = []
    events, generate = LlamaCppInstance._events, LlamaCppInstance.generate

    def noted_events(instance: Any, *given: Any) -> Iterator[Any]:
        for event in events(instance, *given):
            if event.timings is not None:
                last[:] = [event.timings]
            yield event

    def noted_generate(instance: Any, prompt: str, **more: Any) -> Reply:
        began = time.perf_counter()
        reply = generate(instance, prompt, **more)
        found.append(Timed(last[0], reply, time.perf_counter() - began))
        return reply

    monkeypatch.setattr(LlamaCppInstance, "_events", noted_events)
    monkeypatch.setattr(LlamaCppInstance, "generate", noted_generate)
    return found


def manifest(project: Project, *contexts: int) -> None:
    # Several threads are very slow on a busy machine.
    project.manifest(
        f"[{{id: smollm2, engine: llamacpp, source: '{weights.smollm2()}',"
        f" contexts: {list(contexts)}, load: {{threads: 1}}}}]"
    )


def check_rates(requests: list[Timed], prefill: float | None, decode: float | None) -> None:
    assert len(requests) == REPETITIONS
    for request in requests:
        assert request.reply.completion_tokens == DECODE_TOKENS
        fresh = (request.reply.prompt_tokens or 0) - (request.reply.cached_prompt_tokens or 0)
        assert fresh == request.timings.prompt_n == pytest.approx(512, rel=0.05)
    assert prefill == pytest.approx(
        median(each.timings.prompt_per_second for each in requests), rel=WITHIN
    )
    assert decode == pytest.approx(
        median(each.timings.predicted_per_second for each in requests), rel=WITHIN
    )
    assert prefill == pytest.approx(median(each.prefill_by_hand for each in requests), rel=WITHIN)
    assert decode == pytest.approx(median(each.decode_by_hand for each in requests), rel=WITHIN)


def spread_of(result: Result) -> str:
    speed = result.speed
    assert speed is not None
    return (
        f"{result.context_length}: prefill {result.prefill_tokens_per_second:.1f}"
        f" {speed.prefill_spread}, decode {result.decode_tokens_per_second:.1f}"
        f" {speed.decode_spread}"
    )


def test_rates_are_those_of_llamacpp(project: Project, timed: list[Timed]) -> None:
    manifest(project, *SIZES)
    project.run("-m", "speed").assert_outcomes(passed=len(SIZES))
    measured = [each for each in timed if each.reply.completion_tokens == DECODE_TOKENS]
    assert len(measured) == REPETITIONS * (1 + len(SIZES))
    for number, result in enumerate(project.results, start=1):
        print(spread_of(result))
        requests = measured[number * REPETITIONS : (number + 1) * REPETITIONS]
        check_rates(requests, result.prefill_tokens_per_second, result.decode_tokens_per_second)
        speed = result.speed
        assert speed is not None
        assert speed.prefill_clock == speed.decode_clock == "engine"
        check_rates(
            measured[:REPETITIONS],
            speed.empty_prefill_tokens_per_second,
            speed.empty_decode_tokens_per_second,
        )


def install(release: str, folder: Path) -> None:
    """Install xllamacpp alone into `folder`."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target",
               str(folder), f"xllamacpp=={release}"]  # fmt: skip
    subprocess.run(command, check=True, timeout=300)


def test_an_update_of_llamacpp_between_two_runs_is_said(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifest(project, 512)
    release = version("xllamacpp")
    paths = [str(Path(weights.__file__).parents[2]), *filter(None, [os.getenv("PYTHONPATH")])]
    folder = tmp_path / "earlier"
    install(EARLIER, folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *paths]))
    before = project.run_apart("-m", "speed")
    before.assert_outcomes(passed=1)
    before.stdout.no_fnmatch_line("*updated from*")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    after = project.run_apart("-m", "speed")
    after.assert_outcomes(passed=1)
    update = f"llama.cpp updated from {EARLIER} to {release}"
    after.stdout.fnmatch_lines([f"lmstrix: {update}"])
    assert [result.engine_version for result in project.results] == [EARLIER, release]
    reports = project.path / "reports"
    assert update in (reports / "summary.md").read_text().replace("\\", "")
    run = json.loads((reports / "run.json").read_text())
    assert [(each["before"], each["after"]) for each in run["updates"]] == [(EARLIER, release)]
    for change in run.get("changes", ()):
        assert change["earlier_version"] == EARLIER
    print("\n".join(map(spread_of, project.results)))
