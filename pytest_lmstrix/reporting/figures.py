"""Figures for people: sizes in tokens, times, rates; `-` for what is not known."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_lmstrix.regressions import Change
from pytest_lmstrix.types import Result
from pytest_lmstrix.verdicts import Verdict

NOTHING = "-"


def counted(count: int, thing: str) -> str:
    """`1 model`, `2 models`."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def tokens(count: int | None) -> str:
    return NOTHING if count is None else f"{count:,}"


def noted(verdict: Verdict, results: Sequence[Result]) -> str:
    """`ok`, or `ok, slow, retried` where any of `results` has a note that begins so, or passed
    on another try only."""
    names = [note.partition(":")[0] for result in results for note in result.notes]
    if any(result.retried and result.verdict is Verdict.OK for result in results):
        names.append("retried")
    return ", ".join([verdict.value, *dict.fromkeys(names)])


def seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f} s"


def rate(per_second: float | None) -> str:
    return NOTHING if per_second is None else f"{per_second:.1f}"


def memory(size_bytes: int | None) -> str:
    return NOTHING if size_bytes is None else f"{size_bytes / 1e9:.2f} GB"


def duration(value: float) -> str:
    """`12 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
