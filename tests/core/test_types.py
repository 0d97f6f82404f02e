"""Validation of numbers from engines."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.types import ModelFacts, Reply


@pytest.mark.parametrize("value", [-1, 2**70, float("inf"), float("nan"), 1e20, -0.5])
@pytest.mark.parametrize(
    "field", ["prompt_tokens", "completion_tokens", "ttft_seconds", "decode_tokens_per_second"]
)
def test_an_implausible_measurement_is_unknown(field: str, value: float) -> None:
    reply = Reply(text="", **{field: value})  # type: ignore[arg-type]
    assert getattr(reply, field) is None


def test_plausible_measurements_are_kept() -> None:
    reply = Reply(text="", prompt_tokens=0, ttft_seconds=0.5, decode_tokens_per_second=1e4)
    assert (reply.prompt_tokens, reply.ttft_seconds) == (0, 0.5)
    assert reply.decode_tokens_per_second == 1e4


@pytest.mark.parametrize("size", [-1, 2**70])
def test_an_implausible_listed_size_is_unknown(size: int) -> None:
    assert ModelFacts(id="m", size_bytes=size).size_bytes is None
