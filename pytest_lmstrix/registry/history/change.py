"""One difference between the results of a run and those before."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

from msgspec import Struct

Kind = Literal[
    "newly_broken", "still_broken", "smaller_context", "less_reliable", "slower", "changed",
    "newly_working", "larger_context", "faster",
]  # fmt: skip
Measure = Literal[
    "verdict",
    "verified_context",
    "passed_samples",
    "decode_tokens_per_second",
    "prefill_tokens_per_second",
    "ttft_seconds",
    "load_seconds",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Worst first."""

SPEEDS: tuple[Measure, ...] = (
    "decode_tokens_per_second", "prefill_tokens_per_second", "ttft_seconds", "load_seconds",
)  # fmt: skip

_GATED = ("newly_broken", "still_broken", "smaller_context", "less_reliable", "slower")


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One difference from the results before."""

    kind: Kind
    measure: Measure
    model: str
    check: str | None = None
    """`None` for a verified context."""
    context_length: int | None = None
    """Tokens; `None` for a verified context."""
    before: str | int | float | None
    """A verdict, tokens, or the median of `history` values."""
    after: str | int | float | None
    spread: tuple[float, float] | None = None
    """The lowest and highest of the earlier values."""
    history: int = 1
    """Number of earlier results in the comparison."""
    sizes: int = 1
    """Number of results of this run in the comparison: of a speed, checks and sizes."""
    ratio: float | None = None
    """Of a speed: the median of the ratios to the usual values, after / before."""
    earlier_version: str = ""
    """The engine's version of the earlier results, if it was another one."""
    baseline: datetime | None = None
    """When the first of the earlier values was measured, if the newest ones are no better."""
    since: datetime | None = None
    """When a size that is still broken, or works again, failed for the first time."""
    elsewhere: str = ""
    """The difference in setup: another machine, host, engine or engine version."""

    @property
    def is_regression(self) -> bool:
        """Whether it is a change for the worse in the same setup.

        Load times depend on the disk cache: they are reported, but are not regressions.
        """
        return self.kind in _GATED and not self.elsewhere and self.measure != "load_seconds"
