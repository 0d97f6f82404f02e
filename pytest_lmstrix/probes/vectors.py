"""Lengths, distances and similarities of embedding vectors. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = Sequence[float]


def norm(vector: Vector) -> float:
    """Return the length of `vector`."""
    return math.hypot(*vector)


def cosine(one: Vector, other: Vector) -> float:
    """Return the cosine of the angle between two vectors, -1..1.

    Raises:
        ValueError: They have different dimensions, or one of them has no direction.
    """
    if len(one) != len(other):
        raise ValueError(f"vectors of {len(one):,} and of {len(other):,} numbers have no angle")
    lengths = norm(one), norm(other)
    if 0.0 in lengths or not all(map(math.isfinite, lengths)):
        raise ValueError("a vector of length 0, or with numbers that are not finite, has no angle")
    first, second = ([value / length for value in vector]
                     for vector, length in zip((one, other), lengths, strict=True))  # fmt: skip
    return max(-1.0, min(1.0, math.fsum(a * b for a, b in zip(first, second, strict=True))))


def relative_distance(one: Vector, other: Vector) -> float:
    """Return the distance of two vectors of one dimension as a share of the longer one."""
    longest = max(norm(one), norm(other))
    return math.dist(one, other) / longest if longest else 0.0
