"""Changes against earlier runs, in words."""

from __future__ import annotations

from pytest_lmstrix.core.formatting import NOTHING, rate, seconds, tokens
from pytest_lmstrix.registry.regressions import Change

MEASURES = {
    "verdict": "verdict",
    "verified_context": "verified context",
    "decode_tokens_per_second": "decode, tokens/s",
    "prefill_tokens_per_second": "prefill, tokens/s",
    "ttft_seconds": "TTFT",
    "load_seconds": "load",
}
"""What is measured -> how people call it."""


def measured(change: Change, value: str | float | None) -> str:
    """`value` of what changed, in its unit."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    if change.measure == "verified_context":
        return tokens(int(value))
    return rate(value) if change.measure.endswith("per_second") else seconds(value)


def where(change: Change) -> str:
    """`full at 8,192`; empty for what is true of the whole model."""
    if change.context_length is None:
        return ""
    return f"{change.check} at {tokens(change.context_length)}"


def spread(change: Change) -> str:
    """`5 runs: 48.1 to 52.0`; empty for what is no median."""
    if change.spread is None:
        return ""
    low, high = (measured(change, value) for value in change.spread)
    return f"{change.history} runs: {low} to {high}"
