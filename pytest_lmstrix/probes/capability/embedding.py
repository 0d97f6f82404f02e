"""The ability of embedding models: texts of the same meaning have similar vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pytest_lmstrix.core.types import ProbeResult, Proof
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.request import Unable
from pytest_lmstrix.probes.vectors import cosine

EMBEDDING_ABILITY = "embedding"
"""Declared by the type of a model."""
MEANINGS = (
    (
        "A cat sleeps on the sofa.",
        "A kitten is asleep on the sofa.",
        "Interest rates rose again this quarter.",
    ),
    (
        "How do I bake bread at home?",
        "A recipe for bread that you bake at home.",
        "The goalkeeper was sent off after ten minutes.",
    ),
    (
        "The train to Berlin is late.",
        "There is a delay of the train to Berlin.",
        "Water the tomatoes twice a day.",
    ),
)
"""A text, one that means nearly the same, and one about something else."""
_ENOUGH = 2
_EASY = ("The train to Berlin is late.", "the train to Berlin is late", "Water the tomatoes daily.")
"""The control: it distinguishes a text from another one, whatever they mean."""
_LEAST_SAME = 0.99
"""Similarity of the vectors of one text: computed in half precision they may differ a little."""


class EmbedsTexts(Protocol):
    """A loaded embedding model."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector of each text.

        Raises:
            Unable: The engine gives no embeddings.
            Failure: The engine failed, or returned vectors that cannot be compared.
        """


def prove_embedding(loaded: EmbedsTexts) -> ProbeResult:
    """Compare texts whose order by similarity is known.

    A model that orders them wrongly, though it distinguishes texts, is too weak to be judged.
    """
    try:
        again = _similarity(loaded, MEANINGS[0][0], MEANINGS[0][0])
        if again < _LEAST_SAME:
            return _result(
                "failed", f"two vectors of the same text have a similarity of {again:.2f}"
            )
        right = [_is_ordered(loaded, meaning) for meaning in MEANINGS]
        if sum(right) >= _ENOUGH:
            return _result("proven")
        words = f"{sum(right)} of {len(right)} texts are more similar to one of the same meaning"
        if _is_ordered(loaded, _EASY):
            return _result("inconclusive", words)
        return _result("failed", f"{words}, and not even one that differs in a letter and a dot is")
    except Unable as error:
        return _result("inconclusive", str(error))


def _similarity(loaded: EmbedsTexts, one: str, other: str) -> float:
    """Compare the vectors of two requests."""
    return cosine(loaded.embed([one])[0], loaded.embed([other])[0])


def _is_ordered(loaded: EmbedsTexts, texts: tuple[str, str, str]) -> bool:
    text, same, another = loaded.embed(texts)
    return cosine(text, same) > cosine(text, another)


def _result(proof: Proof, words: str = "") -> ProbeResult:
    proofs = {EMBEDDING_ABILITY: proof}
    if proof == "proven":
        detail = f"proven: {EMBEDDING_ABILITY}"
        return ProbeResult(verdict=Verdict.OK, detail=detail, capabilities=proofs)
    judged = "declared, but it does not hold" if proof == "failed" else "not judged"
    verdict = Verdict.WRONG_ANSWER if proof == "failed" else Verdict.INCONCLUSIVE
    return ProbeResult(
        verdict=verdict, detail=f"{EMBEDDING_ABILITY}: {judged}: {words}", capabilities=proofs
    )
