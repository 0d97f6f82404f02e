"""Builds the prompts of `speed`: a fill that grows with the sizes, and texts never sent before."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LEAST_RATE_TOKENS
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.filler import SENTENCES, sentence

PREFILL_TOKENS = 512
DECODE_TOKENS = 128
RESERVED_TOKENS = 64
"""Left free of a context, for what an engine or a chat template adds to a prompt."""
LEAST_FILL = 64
"""A smaller fill is left out."""

_LEAST_PREFILL = LEAST_RATE_TOKENS + 16  # the estimate of a text's tokens may be a little high
_DECODE_SHARE = 5  # of a context that is too small, a fifth is decoded
_STEP = 200  # sentences by which the prose grows
_ATTEMPTS = 8
_SHORTER = 0.02  # share by which a fill may be shorter than asked


class Amounts(NamedTuple):
    """Tokens of the parts of a context."""

    fill: int
    prefill: int
    decode: int

    @property
    def are_scaled(self) -> bool:
        """Whether the context has no room for the usual amounts."""
        return (self.prefill, self.decode) != (PREFILL_TOKENS, DECODE_TOKENS)


def amounts_of(size: int) -> Amounts:
    """Return the tokens to fill, prefill and decode in a context of `size` tokens.

    Raises:
        Failure: `inconclusive`: it is too small for a rate.
    """
    left = size - RESERVED_TOKENS
    decode = min(DECODE_TOKENS, max(LEAST_RATE_TOKENS, left // _DECODE_SHARE))
    prefill = min(PREFILL_TOKENS, left - decode)
    if prefill < _LEAST_PREFILL:
        least = RESERVED_TOKENS + LEAST_RATE_TOKENS + _LEAST_PREFILL
        text = f"a context of {size:,} tokens is too small for a rate: {least:,} are needed"
        raise Failure(text, verdict=Verdict.INCONCLUSIVE)
    fill = left - prefill - decode
    return Amounts(fill if fill >= LEAST_FILL else 0, prefill, decode)


class Fill(NamedTuple):
    """What stands in the context before the measured tokens."""

    text: str
    tokens: int


class SpeedTexts:
    """The texts for one model; `count_tokens` counts in its vocabulary."""

    def __init__(self, seed: int, count_tokens: Callable[[str], int]) -> None:
        """Estimate the characters per token.

        Raises:
            Failure: `engine_error`: no tokens are counted in prose.
        """
        self._count_tokens = count_tokens
        self._rng = Random(seed)
        self._stream = ""
        sample = " ".join(SENTENCES)
        tokens = count_tokens(sample)
        if tokens < 1:
            raise Failure(f"{tokens} tokens counted in prose", verdict=Verdict.ENGINE_ERROR)
        self._pitch = len(sample) / tokens

    def fill(self, tokens: int) -> Fill:
        """Return prose of at most `tokens` tokens; it begins with every smaller fill.

        Raises:
            Failure: `inconclusive`: the tokens cannot be counted consistently.
        """
        if not tokens:
            return Fill("", 0)
        least = tokens - max(LEAST_FILL // 2, int(_SHORTER * tokens))
        aim = int((tokens + least) / 2 * self._pitch)
        for _ in range(_ATTEMPTS):
            text = self._beginning(aim)
            counted = self._count_tokens(text)
            if least <= counted <= tokens:
                return Fill(text, counted)
            aim += int(((tokens + least) / 2 - counted) * self._pitch)
        text = f"a fill of {tokens:,} tokens is counted as {counted:,}"
        raise Failure(text, verdict=Verdict.INCONCLUSIVE)

    def fresh(self, tokens: int) -> str:
        """Return a text of about `tokens` tokens that differs from all others from its start."""
        number = secrets.randbelow(10**9)
        rng = Random(number)
        text, length = [f"Chapter {number}."], int(tokens * self._pitch)
        written = 0
        while written < length:
            text.append(sentence(rng))
            written += len(text[-1]) + 1
        whole = " ".join(text)
        return whole[: whole.rfind(" ", 0, length)]

    def _beginning(self, length: int) -> str:
        """Return the first `length` characters of the prose, up to a word's end, and a space."""
        while len(self._stream) <= length:
            self._stream += " ".join(sentence(self._rng) for _ in range(_STEP)) + " "
        return self._stream[: self._stream.rfind(" ", 0, max(2, length)) + 1]
