"""Detects the size above which a model decodes far slower than below. Pure."""

from __future__ import annotations

from collections.abc import Mapping

CLIFF = 3
"""A rate this many times lower than at the next smaller size gets a note."""


def slow_note(context_length: int, decode_rate: float, known: Mapping[int, float]) -> str | None:
    """Return `slow: ...` if `decode_rate` is less than a third of that at the next smaller size.

    `known` are the rates of the same model at other context lengths, tokens per second.
    """
    smaller = max((size for size in known if size < context_length), default=None)
    if smaller is None or decode_rate * CLIFF >= known[smaller]:
        return None
    return f"slow: decodes {decode_rate:.1f} tokens/s, {known[smaller]:.1f} at {smaller:,}"
