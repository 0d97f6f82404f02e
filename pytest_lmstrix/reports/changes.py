"""Text for changes since earlier runs."""

from __future__ import annotations

from pytest_lmstrix.core.formatting import NOTHING, count_of, rate, seconds, tokens
from pytest_lmstrix.registry.history.change import Change

MEASURES = {
    "verdict": "verdict",
    "verified_context": "verified context",
    "passed_samples": "passed samples",
    "decode_tokens_per_second": "decode, tokens/s",
    "prefill_tokens_per_second": "prefill, tokens/s",
    "ttft_seconds": "TTFT",
    "load_seconds": "load",
}
"""Measure -> its label."""


def format_measure(change: Change, value: str | float | None) -> str:
    """Return `value` with the unit of the measure that changed."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    if change.measure == "verified_context":
        return tokens(int(value))
    return rate(value) if change.measure.endswith("per_second") else seconds(value)


def where(change: Change) -> str:
    """Return check and size, `full at 8,192`; empty for a change of the whole model."""
    if change.context_length is None:
        return ""
    return f"{change.check} at {tokens(change.context_length)}"


def basis(change: Change) -> str:
    """Return what the comparison rests on, such as `with 0.4.18; 4 sizes, 12 earlier values`."""
    if change.elsewhere:
        return change.elsewhere
    parts = [f"with {change.earlier_version}"] if change.earlier_version else []
    if change.baseline is not None:
        parts.append(f"as measured first, {change.baseline:%Y-%m-%d}")
    if change.since is not None:
        verb = "was broken" if change.kind == "newly_working" else "broken"
        parts.append(f"{verb} since {change.since:%Y-%m-%d}")
    if change.spread is not None:
        low, high = (format_measure(change, value) for value in change.spread)
        sizes = f"{count_of(change.sizes, 'size')}, " if change.sizes > 1 else ""
        earlier = count_of(change.history, "earlier value")
        parts.append(f"{sizes}{earlier}: {low} to {high}")
    return "; ".join(parts)
