"""Builds needle-in-a-haystack prompts that fill a context.

One text serves several context sizes: the prose for a size begins with the prose for every smaller
size, so that an engine with a prefix cache processes each token only once. Each size has its own
five facts, at the same depths of its own prose, and all facts of a text are of different kinds.
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
from pytest_lmstrix.probes.tiers.facts import Rivals, TierFacts, TierText

DEPTHS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Depths of the facts: 0.0 is the beginning of the prose, 1.0 its end."""
MAX_SIZES = len(NEEDLE_KINDS) // len(DEPTHS)
"""Largest number of sizes for one text, so that all its facts are of different kinds."""
ANSWER_TOKENS = 12
"""Tokens reserved for the answer, which are also the budget of the reply."""
SPECIAL_TOKENS = 4
"""Tokens reserved for what an engine adds to a prompt, such as a begin-of-text token."""
FILL = 0.98
"""Minimum share to fill of a context without the tokens reserved for the answer."""

CountTokens = Callable[[str], int]

_CUE = "\n\nWhat was said above:\n\n"  # with it, a 135M model passed 450 of 450 controls
_PARAGRAPH = 6  # sentences
_CHOICE = 9  # each size draws its five kinds from this many of those left, the easiest first
_SHORTER = 16  # tokens by which another question may be shorter than the longest
_ROUNDS = 4  # rounds of laying out the text
_AIMED = 8  # attempts to place the end by estimate, before plain bisection
_TOLERANCE = 0.005  # share of the length of the prose
_SAMPLE = 200  # sentences used to estimate the characters per token
_PREFILL = 1.1  # prompt tokens to process for all sizes, as a multiple of the largest
_EXTRA = 2  # tokens that an engine may process besides those of a prompt


class Needle(Struct, frozen=True, kw_only=True):
    """A hidden fact."""

    depth: float
    opening: str
    """The beginning of its sentence, unique in the text."""
    answer: str

    @property
    def sentence(self) -> str:
        """The fact as written in the text, where it is stated twice.

        The pass key test of https://arxiv.org/abs/2305.16300 does the same. When it was stated
        once, a 135M model trained for 8,192 tokens sometimes missed it about 7,500 tokens later.
        """
        fact = f"{self.opening} {self.answer}."
        return f"{fact} Remember it: {fact[0].lower()}{fact[1:]}"

    @property
    def question(self) -> str:
        """The text appended to the prose, which the model is to continue."""
        return _CUE + self.opening

    def recalled(self, reply: str) -> bool:
        """Return whether the first sentence of `reply` contains the answer as a whole word."""
        first = re.split(r"[.!?\n]", reply.strip(), maxsplit=1)[0]
        return (
            re.search(rf"(?<!\w){re.escape(self.answer)}(?!\w)", first, re.IGNORECASE) is not None
        )


class Haystack(Struct, frozen=True, kw_only=True):
    """The prompts that fill a context of one size."""

    size: int
    """The context length to fill, tokens."""
    seed: int
    prose: str
    needles: tuple[Needle, ...]
    """The facts of this size, in the order of their depths."""
    prompt_tokens: tuple[int, ...]
    """Tokens of the prose with the question for each needle, without special tokens."""
    tiers: TierFacts | None = None
    """What else is asked for; nothing at small sizes."""

    @property
    def control(self) -> str:
        """The facts without the prose."""
        return "\n".join(needle.sentence for needle in self.needles)


def fill(
    seed: int,
    sizes: Iterable[int],
    count_tokens: CountTokens,
    reserved: Callable[[int], int] = lambda size: 0,
    tiers: bool = False,
) -> tuple[Haystack, ...]:
    """Build a haystack for each size, in ascending order; deterministic for a seed and vocabulary.

    `count_tokens` counts in the model's own vocabulary. It is called about ten times for each
    size, with the whole prompt. `reserved` tokens of a size stay free besides those reserved for
    a raw completion; the facts do not depend on them. With `tiers`, the text also holds their facts
    and rivals, for those sizes where that keeps the prefill small.

    Raises:
        ValueError: There are more sizes than `MAX_SIZES`.
        Failure: `inconclusive` when a size is too small for its facts; `engine_error` when the
            engine counts no tokens in prose.
    """
    ascending = sorted(set(sizes))
    if len(ascending) > MAX_SIZES:
        raise ValueError(f"got {len(ascending)} sizes; one text serves at most {MAX_SIZES}")
    rng = Random(seed)
    left = list(NEEDLE_KINDS[: max(_CHOICE, len(DEPTHS) * len(ascending))])
    drawn = dict[int, list[NeedleKind]]()
    for size in reversed(ascending):  # the largest gets the easiest kinds
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
        spans.append(_Span(size, needles, pitch, reserved(size)))
    text_of_tiers = TierText(seed)
    if tiers:
        _add_tiers(text_of_tiers, spans, count_tokens)
    # The places of the facts depend on the length of the prose, which depends on the facts.
    for _ in range(_ROUNDS):
        rivals = text_of_tiers.rivals(seed) if any(span.tiers for span in spans) else None
        stream = _write(Random(seed), spans, rivals)
        haystacks = tuple(span.cut(seed, stream, count_tokens) for span in spans)
        settled = [span.settles(h.prose) for span, h in zip(spans, haystacks, strict=True)]
        if all(settled):
            break
    for haystack in haystacks:
        if not all(needle.sentence in haystack.prose for needle in haystack.needles):
            raise _too_small(haystack.size)
    return haystacks


class _Span:
    """Finds the prose of one size; `pitch` is the estimated number of characters per token."""

    def __init__(self, size: int, needles: tuple[Needle, ...], pitch: float, reserved: int) -> None:
        self.size = size
        self.needles = needles
        self.tiers: TierFacts | None = None
        self.pitch = pitch
        self.most = size - ANSWER_TOKENS - SPECIAL_TOKENS - reserved
        least = math.ceil(FILL * (size - ANSWER_TOKENS - reserved))
        if least > self.most:
            raise _too_small(size)
        # For the prompt with the longest question; those with the others are a little shorter.
        self.least = least + min((self.most - least) // 2, _SHORTER)
        # Not fuller than necessary: a model may be weaker at the last tokens of its context.
        self.most = min(self.most, self.least + max(_SHORTER, size // 200))
        self.slack = (self.most - self.least) / 2
        self.longest = max((needle.question for needle in needles), key=len)
        self.length = int((self.least + self.slack) * pitch) - len(self.longest)
        """Estimated characters of the prose."""

    def places(self) -> list[tuple[float, str]]:
        """Return the position of each fact, in characters, with its paragraph."""
        return [
            (n.depth * (self.length - len(n.sentence)), f"{n.sentence}\n\n") for n in self.needles
        ]

    def places_of_tiers(self) -> list[tuple[float, str]]:
        """Return the position of each sentence of the tiers, which is part of a paragraph."""
        hidden = self.tiers.hidden if self.tiers else ()
        return [(depth * (self.length - len(text)), f"{text} ") for depth, text in hidden]

    def cut(self, seed: int, stream: str, count_tokens: CountTokens) -> Haystack:
        """Cut the prose to size, after a sentence if that fills the context, else after a word."""
        fits, over = 0, len(stream)  # stream[:fits] is too short, stream[:over] is too long
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
                    tiers=self.tiers,
                )
            fits, over = (end, over) if max(used) < self.least else (fits, end)
            aim = end + int((self.least + self.slack - max(used)) * self.pitch)

    def settles(self, prose: str) -> bool:
        """Return whether `prose` is as long as expected; expect its length from now on."""
        expected, self.length = self.length, len(prose)
        return abs(self.length - expected) <= _TOLERANCE * self.length

    def _tidy(self, stream: str, end: int) -> int:
        after_sentence = stream.rfind(". ", 0, max(0, end)) + 1
        if end - after_sentence <= self.slack * self.pitch:
            return after_sentence
        return stream.rfind(" ", 0, max(0, end))


def _add_tiers(text: TierText, spans: list[_Span], count_tokens: CountTokens) -> None:
    """Give the sizes their facts for the tiers, the largest first, while the prefill allows it."""
    left = _PREFILL * spans[-1].size - spans[-1].most
    for span in spans:
        questions = [needle.question for needle in span.needles]
        lines = [needle.sentence for needle in span.needles]
        left -= count_tokens("\n".join((*lines, *questions, *questions)))
        left -= 2 * len(questions) * _EXTRA
    for span in reversed(spans):
        facts = text.facts()
        tails = [question.tail for each in facts.questions.values() for question in each]
        left -= count_tokens(" ".join((facts.control, *tails, *tails))) + 2 * len(tails) * _EXTRA
        if left < 0:
            break
        if max(map(count_tokens, tails)) <= max(count_tokens(n.question) for n in span.needles):
            span.tiers = facts


def _too_small(size: int) -> Failure:
    return Failure(
        f"a context of {size:,} tokens is too small to hide {len(DEPTHS)} facts in it",
        verdict=Verdict.INCONCLUSIVE,
    )


def _write(rng: Random, spans: list[_Span], rivals: Rivals | None) -> str:
    """Write more prose than the largest size can hold, each fact a paragraph at its place."""
    hidden = sorted((place for span in spans for place in span.places()), reverse=True)
    within = sorted((place for span in spans for place in span.places_of_tiers()), reverse=True)
    enough = 1.2 * max(span.length for span in spans)
    text = [sentence(rng) + " "]
    written = len(text[0])
    piece = sentence(rng)
    while hidden or within or written < enough:
        if hidden and hidden[-1][0] < written + len(piece) / 2:
            text += f"{text.pop().rstrip()}\n\n", hidden.pop()[1]
        elif within and within[-1][0] < written + len(piece) / 2:
            text.append(within.pop()[1])
        else:
            text.append(piece + (" " if len(text) % _PARAGRAPH else "\n\n"))
            piece = (rivals.next() if rivals else None) or sentence(rng)
        written += len(text[-1])
    return "".join(text)
