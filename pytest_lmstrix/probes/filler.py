"""Filler text for haystacks, without anything that could be mistaken for a needle.

Only a few sentences, repeated in random order: among many different sentences, a model of 135M
parameters sometimes missed a fact in 8,192 tokens, which measures the model's ability, not its
context length.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from random import Random

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict

SENTENCES = (
    "In the evening the farmer walked along the river and thought of the weather.",
    "After the rain the widow came down the lane and thought of a long journey.",
    "Every now and then the carpenter ran beside the pond and thought of nothing in particular.",
    "Towards midnight the ferryman wandered up the hill and thought of the price of corn.",
    "There was the old woman who said that it was better to wait.",
    "There was the shepherd who hoped that the winter would be mild.",
    "Before breakfast the schoolboy noticed that the dogs had barked again.",
    "As usual the weaver told everybody that nobody knew the reason.",
    "Some narrow loader near the well creaked a little in the wind.",
    "Some heavy ladder behind the church lay forgotten in the grass.",
    "Some muddy fence across the fields was still wet from the rain.",
    "Some crooked gate stood where it always had.",
    "Late in the summer the crickets could be heard everywhere.",
    "At noon the swallows came and went.",
    "Some clouds moved slowly over the land while the gardener mended a basket.",
    "Not long ago the innkeeper remembered that somebody ought to mend the roof.",
)
"""No numbers, colours or names: those are answers of needles."""


def sentence(rng: Random) -> str:
    """Return a random sentence of filler text."""
    return rng.choice(SENTENCES)


_SAMPLE = 100  # sentences used to estimate the characters per token
_NEAR = 40  # tokens that may be missing, and a share of them:
_NEAR_SHARE = 200


def filler_text(tokens: int, count_tokens: Callable[[str], int]) -> str:
    """Return filler of at most `tokens` tokens, and little less; deterministic for a vocabulary.

    A longer text begins with the shorter, so that an engine with a prefix cache can use it again.

    Raises:
        Failure: `engine_error` when the engine counts no tokens in prose.
    """
    rng = Random(0)
    sample = [sentence(rng) for _ in range(_SAMPLE)]
    counted = count_tokens(" ".join(sample))
    if counted < 1:
        raise Failure(f"{counted} tokens counted in prose", verdict=Verdict.ENGINE_ERROR)
    pitch = sum(map(len, sample)) / counted
    enough = 2 * tokens * pitch
    sentences = [*sample]
    written = sum(map(len, sample))
    while written < enough:
        sentences.append(sentence(rng))
        written += len(sentences[-1])
    text = " ".join(sentences)
    ends = list(accumulate((len(each) + 1 for each in sentences), initial=0))
    fits, over = 0, len(ends)  # sentences
    guess = round(tokens / counted * _SAMPLE)
    while over - fits > 1:
        guess = min(max(guess, fits + 1), over - 1)
        used = count_tokens(text[: ends[guess] - 1])
        fits, over = (guess, over) if used <= tokens else (fits, guess)
        if 0 <= tokens - used <= max(_NEAR, tokens // _NEAR_SHARE):
            break
        guess = round(guess + (tokens - used) / counted * _SAMPLE)
    return text[: max(0, ends[fits] - 1)]
