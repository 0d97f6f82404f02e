"""The built-in checks: their names, which are their markers, and their versions."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One built-in check."""

    version: int
    """Raised when the check begins to ask for something else: then every case is tested again."""
    evidence: str
    """The check whose questions it asks: results with the same evidence can be compared."""


CHECKS = {
    "fast": Check(version=1, evidence="fast"),
    "full": Check(version=1, evidence="full"),
    "deep": Check(version=1, evidence="deep"),
    "limit": Check(version=1, evidence="full"),
}
"""Marker -> check; `test_<marker>` is the test."""


def evidence_of(check: str) -> str:
    """The check whose questions `check` asks: itself, unless it is `limit`."""
    return CHECKS[check].evidence if check in CHECKS else check
