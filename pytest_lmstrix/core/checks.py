"""The built-in checks: names, which are also markers, and versions."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args


class Check(NamedTuple):
    """One built-in check."""

    version: int
    """Increased when the check changes, which invalidates its cached results."""
    evidence: str
    """The check whose probe it uses; results with the same evidence are comparable."""
    judges_size: bool = True
    """Whether its verdicts show at which context lengths a model works."""


CHECKS = {
    "fast": Check(version=1, evidence="fast"),
    "full": Check(version=1, evidence="full"),
    "deep": Check(version=1, evidence="deep"),
    "limit": Check(version=1, evidence="full"),
    "speed": Check(version=1, evidence="speed"),
    "capability": Check(version=1, evidence="capability", judges_size=False),
}
"""Marker -> check; `test_<marker>` is the test."""
PROVABLE = ("tools", "vision", "thinking")
"""Capabilities of listings and manifests that `capability` proves."""


def judges_size(check: str) -> bool:
    """Return whether `check` shows at which context lengths a model works: most built-in ones."""
    return check in CHECKS and CHECKS[check].judges_size


Tier = Literal["resist", "follow"]
TIERS: tuple[Tier, ...] = get_args(Tier)
"""What `deep` asks besides its verdict, which is `reach`, in the order of their difficulty."""


def evidence_of(check: str) -> str:
    """Return the check whose probe `check` uses: itself, except for `limit`."""
    return CHECKS[check].evidence if check in CHECKS else check
