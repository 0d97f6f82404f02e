"""Times a streamed reply, for engines that report no timings of their own."""

from __future__ import annotations

import time

LEAST_PARTS = 8
"""A reply in fewer parts shows no rate."""


class StreamClock:
    """Runs from its creation; `arrived` is called for each part of the reply."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first = self._last = self._began
        self._parts = 0

    def arrived(self) -> None:
        """Note that a part arrived now."""
        self._last = time.monotonic()
        if not self._parts:
            self._first = self._last
        self._parts += 1

    @property
    def first_seconds(self) -> float | None:
        """From the start to the first part."""
        return self._first - self._began if self._parts else None

    @property
    def decode_seconds(self) -> float | None:
        """Decoding of all parts: the first was decoded before it arrived, as fast as the others."""
        if self._parts < LEAST_PARTS or self._last <= self._first:
            return None
        return (self._last - self._first) * self._parts / (self._parts - 1)
