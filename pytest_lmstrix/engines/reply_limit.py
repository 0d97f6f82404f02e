"""Bounds a streamed reply, whatever an engine sends."""

from __future__ import annotations

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict

BEYOND_LIMIT = "beyond_limit"
"""The code of the `Failure` for a reply beyond its limit."""

SPARE_FRAGMENTS = 100
"""Fragments allowed beyond two for each token: with still more, a reply does not end."""

CHARACTERS_PER_TOKEN = 1_000
"""More than the longest token of any vocabulary has."""


class ReplyLimit:
    """Counts the fragments of one reply of at most `max_tokens` tokens; 0 is no limit."""

    def __init__(self, engine: str, max_tokens: int) -> None:
        self._engine = engine
        self.max_tokens = max_tokens
        self._fragments = 0
        self._characters = 0

    @property
    def most_characters(self) -> int:
        """The largest total length of the fragments."""
        return (self.max_tokens + SPARE_FRAGMENTS) * CHARACTERS_PER_TOKEN

    def count(self, fragment: str) -> None:
        """Count one fragment.

        Raises:
            Failure: The reply is beyond its limit.
        """
        self._fragments += 1
        self._characters += len(fragment)
        if self.max_tokens <= 0:
            return
        if self._characters > self.most_characters:
            raise self.exceeded()
        if self._fragments > 2 * self.max_tokens + SPARE_FRAGMENTS:
            raise self._failure(f"goes on answering beyond the {self.max_tokens:,} tokens")

    def is_reached(self, tokens: int | None) -> bool:
        """Whether a reply of so many `tokens` has all that it may have."""
        return self.max_tokens > 0 and (tokens or 0) >= self.max_tokens

    def exceeded(self) -> Failure:
        """Return the error for more than the allowed characters."""
        return self._failure(
            f"sends more than {self.most_characters:,} characters for a reply of"
            f" {self.max_tokens:,} tokens"
        )

    def _failure(self, text: str) -> Failure:
        return Failure(
            f"{self._engine} {text}",
            verdict=Verdict.ENGINE_ERROR,
            phase="predict",
            code=BEYOND_LIMIT,
        )
