"""Measurements and their plausible values: engines report anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import force_setattr

PrefillClock = Literal["engine", "ttft"]
DecodeClock = Literal["engine", "stream"]
Spread = tuple[float, float]
"""The lowest and the highest of several values."""

MAX_TOKENS = 2**31 - 1
MAX_SECONDS = 10_000_000
MAX_TOKENS_PER_SECOND = 1_000_000_000
MAX_SIZE_BYTES = 2**63 - 1
PADDING = 256
"""llama.cpp rounds a context length up to a multiple of this (`llama_context`, GGML_PAD)."""


def padded(context_length: int) -> int:
    """Return what an engine may grant for `context_length` by rounding alone, tokens."""
    return -(-context_length // PADDING) * PADDING


def is_sane(value: object, most: float) -> bool:
    """Return whether a measured value is a finite number from 0 to `most`."""
    return (
        isinstance(value, int | float) and math.isfinite(min(value, 1e300)) and 0 <= value <= most
    )


MEASURED: Mapping[str, float] = {
    "prompt_tokens": MAX_TOKENS,
    "cached_prompt_tokens": MAX_TOKENS,
    "completion_tokens": MAX_TOKENS,
    "prefill_tokens": MAX_TOKENS,
    "decode_tokens": MAX_TOKENS,
    "load_seconds": MAX_SECONDS,
    "ttft_seconds": MAX_SECONDS,
    "prefill_seconds": MAX_SECONDS,
    "decode_seconds": MAX_SECONDS,
    "prefill_tokens_per_second": MAX_TOKENS_PER_SECOND,
    "decode_tokens_per_second": MAX_TOKENS_PER_SECOND,
    "empty_prefill_tokens_per_second": MAX_TOKENS_PER_SECOND,
    "empty_decode_tokens_per_second": MAX_TOKENS_PER_SECOND,
    "peak_memory_bytes": MAX_SIZE_BYTES,
    "estimated_memory_bytes": MAX_SIZE_BYTES,
    "size_bytes": MAX_SIZE_BYTES,
    "samples": MAX_TOKENS,
    "passed_samples": MAX_TOKENS,
    "required_samples": MAX_TOKENS,
}
"""Measured field -> its largest plausible value."""


def drop_insane(struct: Struct) -> None:
    """Set measured fields with implausible values to `None`."""
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if name in MEASURED and value is not None and not is_sane(value, MEASURED[name]):
            force_setattr(struct, name, None)


class Speed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `speed` measured besides the medians in the filled context."""

    depth: int = 0
    """Tokens of the fill, before those of which the prefill was measured."""
    repetitions: int = 0
    """Measurements in the filled context, after a warm-up."""
    prefill_spread: Spread | None = None
    decode_spread: Spread | None = None
    empty_prefill_tokens_per_second: float | None = None
    """At depth 0: the median."""
    empty_decode_tokens_per_second: float | None = None
    empty_prefill_spread: Spread | None = None
    empty_decode_spread: Spread | None = None
    prefill_clock: PrefillClock | None = None
    """`engine`: its own timings. `ttft`: the time to the first token."""
    decode_clock: DecodeClock | None = None
    """`engine`: its own timings. `stream`: the times at which tokens arrived."""

    def __post_init__(self) -> None:
        drop_insane(self)
