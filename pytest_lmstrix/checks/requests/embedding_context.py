"""Proves that an embedding model uses its whole context: every part changes the vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.request import Unable
from pytest_lmstrix.probes.filler import filler_text
from pytest_lmstrix.probes.haystack import CountTokens
from pytest_lmstrix.probes.vectors import relative_distance

SPARE_TOKENS = 4
"""Room for the special tokens of a text where the engine does not count them."""
PLACES = ("start", "middle", "end")
_ONE, _OTHER = "Copper pipes carry hot water.", "Seven violins played at night."
"""Two texts of about the same length, which a vector must distinguish."""
_PAD = " rain"
_LEAST_TOKENS = 64
_LEAST_DISTANCE = 1e-6
"""Below it two vectors are equal: they are rounded to single precision."""
_OVER_NOISE = 3
_CONTROL_DISTANCE = 0.01

EmbedText = Callable[[str], tuple[list[float], int | None]]
"""Text -> vector, and the engine's own count of its tokens."""


class ContextProof(Struct, frozen=True, kw_only=True):
    """What the filled context has shown; distances are shares of the length of the vector."""

    context_length: int
    """Tokens to fill."""
    tokens: int
    """Of the text, special ones included: as the engine counted them, else by the vocabulary."""
    counted_by_engine: bool
    distances: Mapping[str, float]
    """Place of a changed sentence -> how far that moved the vector."""
    noise: float
    """The distance of two vectors of the same text."""

    def __str__(self) -> str:
        moved = ", ".join(f"{place} {moved:.2g}" for place, moved in self.distances.items())
        return (
            f"filled {self.tokens:,} of {self.context_length:,} tokens; a changed sentence moved"
            f" the vector: {moved} (noise {self.noise:.2g})"
        )


def prove_context(size: int, embed: EmbedText, count: CountTokens) -> ContextProof:
    """Fill `size` tokens, and change a sentence at each of `PLACES`.

    Raises:
        Unable: The context is too small.
        Failure: `prompt_truncated` if a place does not change the vector.
    """
    if size < _LEAST_TOKENS:
        raise Unable(f"a context of {size:,} tokens is too small: it takes {_LEAST_TOKENS:,}")
    special = _check_control(embed, count)
    room = size - (SPARE_TOKENS if special is None else special)
    text = _filled(room, count)
    base, taken = embed(text({}))
    distances = {}
    for place in reversed(PLACES):
        changed, _ = embed(text({place: _OTHER}))
        distances[place] = relative_distance(base, changed)
    again, _ = embed(text({}))
    proof = ContextProof(
        context_length=size,
        tokens=taken or count(text({})) + (special or 0),
        counted_by_engine=taken is not None,
        distances={place: distances[place] for place in PLACES},
        noise=relative_distance(base, again),
    )
    _check_places(proof)
    return proof


def too_long_text(context_length: int, count: CountTokens) -> str:
    """Return a text of about a third more tokens than `context_length`."""
    return filler_text(context_length + context_length // 3 + _LEAST_TOKENS, count)


def _check_control(embed: EmbedText, count: CountTokens) -> int | None:
    """Return the special tokens of a text, if the engine counts them.

    Raises:
        Failure: Two different short texts have the same vector.
    """
    (one, taken), (other, _) = embed(_ONE), embed(_OTHER)
    if (moved := relative_distance(one, other)) < _CONTROL_DISTANCE:
        raise Failure(
            f"different texts have the same vector (distance {moved:.2g})",
            verdict=Verdict.WRONG_ANSWER,
        )
    return None if taken is None else max(0, taken - count(_ONE))


def _filled(room: int, count: CountTokens) -> Callable[[Mapping[str, str]], str]:
    """Return a function that makes a text of `room` tokens, with other sentences at places."""
    spare = max(2, room // 512)  # tokens that merge, or do not, where texts are joined
    marks = max(count(" ".join([one] * 3)) for one in (_ONE, _OTHER))
    filler = _padded(room - marks - spare, count)
    middle = filler.find(" ", len(filler) // 2)

    def text(changed: Mapping[str, str]) -> str:
        start, between, end = (changed.get(place, _ONE) for place in PLACES)
        return f"{start} {filler[:middle]} {between}{filler[middle:]} {end}"

    return text


def _padded(tokens: int, count: CountTokens) -> str:
    """Return filler of `tokens` tokens, closer than whole sentences come."""
    text = filler_text(tokens, count)
    words = max(0, tokens - count(text))
    while words and (over := count(text + _PAD * words) - tokens) > 0:
        words = max(0, words - over)
    return text + _PAD * words


def _check_places(proof: ContextProof) -> None:
    """Raises:
    Failure: A changed sentence left the vector as it was.
    """
    lost = [place for place in PLACES if proof.distances[place] <= _LEAST_DISTANCE]
    if lost and proof.noise <= _LEAST_DISTANCE:
        text = f"the {' and the '.join(lost)} of the text does not change the vector: {proof}"
        raise Failure(text, verdict=Verdict.PROMPT_TRUNCATED, phase="predict")
    if any(moved <= _OVER_NOISE * proof.noise for moved in proof.distances.values()):
        text = f"the vectors of one text differ too much to show that all of it counts: {proof}"
        raise Failure(text, verdict=Verdict.INCONCLUSIVE, phase="predict")
