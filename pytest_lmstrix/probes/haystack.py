"""Prose that fills a context to the brim, with facts hidden in it.

One growing text serves several context sizes: the prose for a size begins with the prose for all
smaller ones, so that an engine's prefix cache pays for every token once. Each size has five facts
of its own at the same depths of its own prose, and no two facts of a text are of the same kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from random import Random

from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.filler import sentence
from pytest_lmstrix.probes.needles import NEEDLE_KINDS, NeedleKind

DEPTHS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Where the facts lie: 0.0 is as early as can be, 1.0 as late."""
MAX_SIZES = len(NEEDLE_KINDS) // len(DEPTHS)
"""Sizes that one text can serve without two facts alike."""
ANSWER_TOKENS = 12
"""Room for the answer, and its budget."""
SPECIAL_TOKENS = 4
"""Room for what an engine puts around a prompt, such as a begin-of-text token."""
FILL = 0.98
"""The least share of a context, less the room for the answer, that is filled."""

CountTokens = Callable[[str], int]

_CUE = "\n\nWhat was said above:\n\n"  # with it, a 135M model got 450 of 450 controls right
_PARAGRAPH = 6  # sentences
_CHOICE = 9  # of the kinds that are left, the best to recall: five are drawn from so many
_SHORTER = 16  # tokens by which another question may be shorter than the longest
_ROUNDS = 4  # of laying out the text
_AIMED = 8  # attempts at its end, before plain bisection
_TOLERANCE = 0.005  # of the length of the prose
_SAMPLE = 200  # sentences, from which the characters per token are estimated


class Needle(Struct, frozen=True, kw_only=True):
    """A hidden fact."""

    depth: float
    opening: str
    """The beginning of its sentence, and of no other one."""
    answer: str

    @property
    def sentence(self) -> str:
        """The fact as it stands in the text, said twice.

        So does the pass key test of https://arxiv.org/abs/2305.16300. Said once, it was lost now
        and then, some 7,500 tokens later, by a 135M model trained for 8,192.
        """
        fact = f"{self.opening} {self.answer}."
        return f"{fact} Remember it: {fact[0].lower()}{fact[1:]}"

    @property
    def question(self) -> str:
        """What is put after a text, for the model to go on with."""
        return _CUE + self.opening

    def recalled(self, reply: str) -> bool:
        """Whether the first sentence of `reply` has the answer in it, as a word of its own."""
        first = re.split(r"[.!?\n]", reply.strip(), maxsplit=1)[0]
        return (
            re.search(rf"(?<!\w){re.escape(self.answer)}(?!\w)", first, re.IGNORECASE) is not None
        )


class Haystack(Struct, frozen=True, kw_only=True):
    """What fills one context size."""

    size: int
    """The context length to fill, tokens."""
    seed: int
    prose: str
    needles: tuple[Needle, ...]
    """The facts of this size, in the order of their depths."""
    prompt_tokens: tuple[int, ...]
    """Tokens of the prose with the question for each needle, special tokens left out."""

    @property
    def control(self) -> str:
        """The facts without the prose."""
        return "\n".join(needle.sentence for needle in self.needles)


def fill(seed: int, sizes: Iterable[int], count_tokens: CountTokens) -> tuple[Haystack, ...]:
    """A haystack for each size, in ascending order; the same for the same seed and vocabulary.

    `count_tokens` counts in the model's own vocabulary. It is called about ten times for each
    size, with all of its prompt.

    Raises:
        ValueError: There are more sizes than `MAX_SIZES`.
        Failure: `inconclusive`, when a size is too small for its facts; `engine_error`, when there
            are no tokens in prose.
    """
    ascending = sorted(set(sizes))
    if len(ascending) > MAX_SIZES:
        raise ValueError(f"{len(ascending)} sizes: one text serves {MAX_SIZES} at most")
    rng = Random(seed)
    left = list(NEEDLE_KINDS[: max(_CHOICE, len(DEPTHS) * len(ascending))])
    drawn = dict[int, list[NeedleKind]]()
    for size in reversed(ascending):  # the largest needs the best
        drawn[size] = rng.sample(left[:_CHOICE], len(DEPTHS))
        left = [kind for kind in left if kind not in drawn[size]]
    sample = " ".join(sentence(rng) for _ in range(_SAMPLE))
    tokens = count_tokens(sample)
    if tokens < 1:
        raise Failure(f"{tokens} tokens counted in prose", verdict=Verdict.ENGINE_ERROR)
    pitch = len(sample) / tokens
    spans: list[_Span] = []
    for size in ascending:
        needles = tuple(
            Needle(depth=depth, opening=kind.opening, answer=rng.choice(kind.answers))
            for depth, kind in zip(DEPTHS, drawn[size], strict=True)
        )
        spans.append(_Span(size, needles, pitch))
    # Where a fact belongs depends on how long the prose turns out to be, and the other way round.
    for _ in range(_ROUNDS):
        stream = _write(Random(seed), spans)
        haystacks = tuple(span.cut(seed, stream, count_tokens) for span in spans)
        settled = [span.settles(h.prose) for span, h in zip(spans, haystacks, strict=True)]
        if all(settled):
            break
    for haystack in haystacks:
        if not all(needle.sentence in haystack.prose for needle in haystack.needles):
            raise _too_small(haystack.size)
    return haystacks


class _Span:
    """A size on its way to a haystack; `pitch` is the number of characters per token, about."""

    def __init__(self, size: int, needles: tuple[Needle, ...], pitch: float) -> None:
        self.size = size
        self.needles = needles
        self.pitch = pitch
        self.most = size - ANSWER_TOKENS - SPECIAL_TOKENS
        least = math.ceil(FILL * (size - ANSWER_TOKENS))
        if least > self.most:
            raise _too_small(size)
        # For the prompt with the longest question; with the others it is a little shorter.
        self.least = least + min((self.most - least) // 2, _SHORTER)
        # No fuller than asked for: on its last tokens a model may be weaker than it has to be.
        self.most = min(self.most, self.least + max(_SHORTER, size // 200))
        self.slack = (self.most - self.least) / 2
        self.longest = max((needle.question for needle in needles), key=len)
        self.length = int((self.least + self.slack) * pitch) - len(self.longest)
        """Characters of the prose, about."""

    def places(self) -> list[tuple[float, str]]:
        """Each fact after the character where it is to begin."""
        return [(n.depth * (self.length - len(n.sentence)), n.sentence) for n in self.needles]

    def cut(self, seed: int, stream: str, count_tokens: CountTokens) -> Haystack:
        """End the prose after a sentence if that fills the context, else after a word."""
        fits, over = 0, len(stream)  # stream[:fits] leaves room, stream[:over] does not
        aim, attempts = self.length, 0
        while True:
            guesses = [(fits + over) // 2]
            if attempts < _AIMED:
                guesses = [self._tidy(stream, aim), aim, *guesses]
            attempts += 1
            end = next((guess for guess in guesses if fits < guess < over), None)
            if end is None:
                raise _too_small(self.size)
            prose = stream[:end]
            used: tuple[int, ...] = (count_tokens(prose + self.longest),)
            if self.least <= used[0] <= self.most:
                used = tuple(count_tokens(prose + needle.question) for needle in self.needles)
            if self.least <= max(used) <= self.most:
                return Haystack(
                    size=self.size,
                    seed=seed,
                    prose=prose,
                    needles=self.needles,
                    prompt_tokens=used,
                )
            fits, over = (end, over) if max(used) < self.least else (fits, end)
            aim = end + int((self.least + self.slack - max(used)) * self.pitch)

    def settles(self, prose: str) -> bool:
        """Whether `prose` is as long as was expected; its length is what is expected from now."""
        expected, self.length = self.length, len(prose)
        return abs(self.length - expected) <= _TOLERANCE * self.length

    def _tidy(self, stream: str, end: int) -> int:
        after_sentence = stream.rfind(". ", 0, max(0, end)) + 1
        if end - after_sentence <= self.slack * self.pitch:
            return after_sentence
        return stream.rfind(" ", 0, max(0, end))


def _too_small(size: int) -> Failure:
    return Failure(
        f"a context of {size:,} tokens is too small to hide {len(DEPTHS)} facts in it",
        verdict=Verdict.INCONCLUSIVE,
    )


def _write(rng: Random, spans: list[_Span]) -> str:
    """More prose than the largest size can hold, every fact a paragraph where it belongs."""
    hidden = sorted((place for span in spans for place in span.places()), reverse=True)
    enough = 1.2 * max(span.length for span in spans)
    text = [sentence(rng) + " "]
    written = len(text[0])
    piece = sentence(rng)
    while hidden or written < enough:
        if hidden and hidden[-1][0] < written + len(piece) / 2:
            text += f"{text.pop().rstrip()}\n\n", f"{hidden.pop()[1]}\n\n"
        else:
            text.append(piece + (" " if len(text) % _PARAGRAPH else "\n\n"))
            piece = sentence(rng)
        written += len(text[-1])
    return "".join(text)
