"""Counts of tokens: each text once, also with an engine that only counts those of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict

PIECE_CHARACTERS = 4_000
"""Length of the pieces that are counted apart; shorter where the context is small."""

_ONE, _MORE = "one two three", " four five six"


class KnownCounts:
    """Has `count` count each text once; of a text only its digest is kept."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._known: dict[bytes, int] = {}

    def __call__(self, text: str) -> int:
        key = blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
        if key not in self._known:
            self._known[key] = self._count(text)
        return self._known[key]


class TokenCounter:
    """Counts texts in pieces, each of them once: texts that begin alike are measured once.

    `measure` returns the tokens of a prompt, special tokens included. A prompt that is too long
    for the context may be cut to half of it, and half of the context may be all that was granted:
    so a count of a quarter of the context, or more, is not trusted.
    """

    def __init__(self, measure: Callable[[str], int], context_length: int) -> None:
        self._measure = measure
        self._limit = context_length // 4
        self._length = max(1, min(PIECE_CHARACTERS, context_length // 2))
        self._known: dict[str, int] = {}
        self._added: int | None = None

    def count(self, text: str) -> int:
        """Return the tokens of `text`, without special tokens."""
        return sum(self._piece(piece) for piece in _pieces(text, self._length))

    @property
    def added(self) -> int:
        """Tokens that a piece has alone and not within a text, such as a begin-of-text token."""
        if self._added is None:
            apart = self._measure(_ONE) + self._measure(_MORE)
            self._added = max(0, apart - self._measure(_ONE + _MORE))
        return self._added

    def _piece(self, piece: str) -> int:
        if piece not in self._known:
            self._known[piece] = self._counted(piece)
        return self._known[piece]

    def _counted(self, piece: str) -> int:
        added = self.added
        try:
            measured = self._measure(piece)
        except Failure as failure:
            if failure.verdict is not Verdict.CONTEXT_TOO_LARGE:
                raise
            measured = self._limit
        if measured < self._limit or len(piece) < 2:
            return max(0, measured - added)
        middle = piece.find(" ", len(piece) // 2)
        middle = middle if middle > 0 else len(piece) // 2
        return self._counted(piece[:middle]) + self._counted(piece[middle:])


def _pieces(text: str, length: int) -> Iterator[str]:
    """Cut `text` before spaces, always at the same places for texts that begin alike."""
    start = 0
    while start < len(text):
        end = text.find(" ", start + length)
        end = end if end > 0 else len(text)
        yield text[start:end]
        start = end
