"""Filler text for haystacks, without anything that could be mistaken for a needle.

Only a few sentences, repeated in random order: among many different sentences, a model of 135M
parameters sometimes missed a fact in 8,192 tokens, which measures the model's ability, not its
context length.
"""

from __future__ import annotations

from random import Random

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
