"""Figures as people read them."""

from __future__ import annotations

NOTHING = "-"


def counted(count: int, thing: str) -> str:
    """`1 model`, `2 models`."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def tokens(count: int | None) -> str:
    return NOTHING if count is None else f"{count:,}"


def seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f} s"


def rate(per_second: float | None) -> str:
    return NOTHING if per_second is None else f"{per_second:.1f}"
