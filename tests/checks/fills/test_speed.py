"""The check `speed`: one load and one growing fill for all sizes of a model."""

from __future__ import annotations

import pytest

from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.core.types import Case, Model, Reply, Result
from pytest_lmstrix.core.verdicts import Verdict
from tests.checks.laboratory import Run, loader_for
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio.models.behaviours import AnyBehaviour, GrantsAtMost, OutOfMemory
from tests.standin.lmstudio.models.model import StandInModel

SIZES = (1_024, 2_048, 4_096)


def measured(
    *behaviours: AnyBehaviour, sizes: tuple[int, ...] = SIZES
) -> tuple[FakeEngine, ModelLoader, dict[int, Result | None]]:
    engine = FakeEngine((StandInModel(key="tiny", behaviours=behaviours),))
    loader = loader_for(engine)
    model = Model(id="tiny", engine="fake")
    cases = [Case(model=model, context_length=size) for size in sizes]
    results = Run(loader).check("speed", cases)
    return engine, loader, {size: found[0] if found else None for size, found in results.items()}


def loads(engine: FakeEngine) -> list[str]:
    return [event for event in engine.events if event.startswith("load")]


def test_one_load_serves_all_sizes() -> None:
    engine, _, results = measured()
    assert loads(engine) == ["load tiny 4096"]
    for size, result in results.items():
        assert result is not None
        assert (result.verdict, result.check, result.context_length) == ("ok", "speed", size)
        assert result.prefill_tokens_per_second == pytest.approx(2_000, rel=0.01)
        assert result.decode_tokens_per_second == pytest.approx(50)
        assert result.decode_tokens is not None
        assert result.decode_tokens >= 64
        assert result.speed is not None
        assert result.speed.depth == pytest.approx(size - 704, abs=32 + size // 50)
        assert result.replies == ()


def test_the_fill_is_prefilled_once_for_all_sizes() -> None:
    _, loader, _ = measured()
    loaded = loader.loaded()
    assert loaded is not None

    def fresh(reply: Reply) -> int:
        return (reply.prompt_tokens or 0) - (reply.cached_prompt_tokens or 0)

    texts = 4 + 3 * len(SIZES)  # a warm-up and the repetitions at depth 0, and those of each size
    once = max(SIZES) + texts * 512
    asked_on = sum(fresh(reply) for reply in loaded.replies if fresh(reply) < 256)
    assert sum(fresh(reply) for reply in loaded.replies) - asked_on <= 1.1 * once


def test_depth_0_is_measured_once_for_all_sizes() -> None:
    _, _, results = measured()
    speeds = [result.speed for result in results.values() if result is not None]
    empty = {(each.empty_prefill_spread, each.empty_decode_spread) for each in speeds if each}
    assert len(speeds) == len(SIZES)
    assert len(empty) == 1


def test_the_largest_size_that_loads_serves_the_smaller_ones() -> None:
    engine, _, results = measured(OutOfMemory(above=3_000))
    assert loads(engine)[:2] == ["load tiny 4096", "load tiny 2048"]
    verdicts = [result.verdict for result in results.values() if result is not None]
    assert verdicts == ["ok", "ok", "out_of_memory"]


def test_a_size_above_one_that_is_not_granted_is_not_tried() -> None:
    _, _, results = measured(GrantsAtMost(tokens=1_500))
    assert [result and result.verdict for result in results.values()] == [
        Verdict.OK,
        Verdict.CONTEXT_NOT_GRANTED,
        None,
    ]


def test_a_context_without_room_for_a_rate_is_not_even_loaded() -> None:
    engine, _, results = measured(sizes=(128,))
    assert loads(engine) == []
    result = results[128]
    assert result is not None
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.detail == "a context of 128 tokens is too small for a rate: 208 are needed"
    assert result.decode_tokens_per_second is None
