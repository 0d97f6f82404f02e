"""The facts of the tiers of `deep`.

They are a family of their own, which no question of the verdict uses: rivals of a fact that decides
the verdict could cost a weak model that fact, which measures its ability, not its context length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random

from msgspec import Struct

from pytest_lmstrix.core.checks import Tier

RIVAL_SHARE = 0.05
"""Share of the sentences that are rivals."""

_DEPTHS = (0.15, 0.45, 0.7)
"""Of the facts that are asked for."""
_LINK_DEPTHS = (0.3, 0.6, 0.85)
_PLACES = """
    Oslo Bergen Dublin Madrid Athens Warsaw Berlin Geneva Milan Naples Venice Hamburg Munich
    London Paris Rome Cairo Delhi Tokyo Sydney Boston Chicago Dallas Denver Seattle Havana Lima
    Bogota Manila Jakarta Seoul Moscow Kiev Riga Tallinn Stockholm Malmo Leeds York Oxford
    Cambridge Bristol Glasgow Edinburgh Cardiff Belfast Lyon Nice Bordeaux Seville Porto Zurich
    Basel Salzburg Krakow Sofia Bucharest Belgrade Ankara Tunis Dakar Accra Lagos Kampala
"""
_PEOPLE = """
    Emma Peter Alice David Laura Simon Helen Martin Julia Robert Clara Walter Rose Edward Nora
    Philip Ellen George Agnes Henry Lucy
"""
_WORDS = """
    anchor bottle candle eagle forest guitar island jacket lemon mirror ocean pillow rocket
    thunder umbrella zebra
"""
CODE_WORDS = tuple(_WORDS.split())
"""No two begin with the same letter: the first token of an answer is enough to grade it."""


class TierQuestion(Struct, frozen=True, kw_only=True):
    """A question of a tier, and the code word that answers it."""

    opening: str
    answer: str

    @property
    def tail(self) -> str:
        """The text appended to the prose, short since each question is prefilled."""
        return f"\n\n{self.opening}"


class TierFacts(Struct, frozen=True, kw_only=True):
    """What one size hides for its tiers."""

    questions: Mapping[Tier, tuple[TierQuestion, ...]]
    hidden: tuple[tuple[float, str], ...]
    """Depth and sentence of each fact and link."""

    @property
    def control(self) -> str:
        """The facts without the prose: each has the others as rivals."""
        return " ".join(text for _, text in self.hidden)


class TierText:
    """Draws the facts and their rivals for one text; deterministic for its seed."""

    def __init__(self, seed: int) -> None:
        rng = Random(f"tiers {seed}")
        self._rng = rng
        self._places = _shuffled(rng, _PLACES)
        self._people = _shuffled(rng, _PEOPLE)

    def facts(self) -> TierFacts:
        """Return the facts of the next size."""
        places = [self._places.pop() for _ in _DEPTHS]
        people = [self._people.pop() for _ in _DEPTHS]
        words = self._rng.sample(CODE_WORDS, len(places))
        facts = [f"{_opening(place)} {word}." for place, word in zip(places, words, strict=True)]
        # Not in the order of the facts that they name.
        first = self._rng.randrange(1, len(places))
        named = [(first + n) % len(places) for n in range(len(places))]
        links = [
            f"{person} has the code word of {places[at]}."
            for person, at in zip(people, named, strict=True)
        ]
        hidden = [*zip(_DEPTHS, facts, strict=True), *zip(_LINK_DEPTHS, links, strict=True)]
        return TierFacts(
            questions={
                "resist": tuple(
                    TierQuestion(opening=_opening(place), answer=word)
                    for place, word in zip(places, words, strict=True)
                ),
                "follow": tuple(
                    TierQuestion(opening=_opening(person), answer=words[at])
                    for person, at in zip(people, named, strict=True)
                ),
            },
            hidden=tuple(hidden),
        )

    def rivals(self, seed: int) -> Rivals:
        """Return the source of rivals; it yields the same ones for the same facts and `seed`."""
        words = Random(f"words {seed}")
        return Rivals([f"{_opening(p)} {words.choice(CODE_WORDS)}." for p in self._places], seed)


class Rivals:
    """Gives out sentences of the wording of the facts, about places that nothing asks for."""

    def __init__(self, sentences: Iterable[str], seed: int) -> None:
        self._sentences = list(sentences)
        self._rng = Random(f"rivals {seed}")

    def next(self) -> str | None:
        """Return a rival for about `RIVAL_SHARE` of the calls, else `None`."""
        return self._rng.choice(self._sentences) if self._rng.random() < RIVAL_SHARE else None


def _opening(owner: str) -> str:
    return f"The code word of {owner} is"


def _shuffled(rng: Random, names: str) -> list[str]:
    words = names.split()
    return rng.sample(words, len(words))
