"""The ability of embedding models: vectors of known quality get their verdicts."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.request import Unable
from pytest_lmstrix.probes.capability.embedding import MEANINGS, prove_embedding

PLACE = {text: place for place, texts in enumerate(MEANINGS) for text in texts[:2]}


class Model:
    """Vectors by the meaning of a text, its letters, or chance."""

    def __init__(self, kind: str, mistakes: int = 0) -> None:
        self._kind = kind
        self._mistaken = {texts[1] for texts in MEANINGS[:mistakes]}
        self._random = random.Random(1)
        self._seen: dict[str, int] = {}

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        if self._kind == "none":
            raise Unable("engine 'x' gives no embeddings")
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> list[float]:
        if self._kind == "chance":
            return [self._random.uniform(-1, 1) for _ in range(8)]
        if self._kind == "one for all":
            return [1.0, 2.0]
        vector = [0.0] * 30
        if self._kind == "letters":
            letters = "".join(filter(str.isalpha, text.lower()))
            vector[self._seen.setdefault(letters, len(self._seen))] = 1.0
            return vector
        known = text not in self._mistaken
        vector[PLACE.get(text, 29) if known else 29] = 1.0
        return vector


@pytest.mark.parametrize(
    ("model", "verdict", "words"),
    [
        (Model("meaning"), Verdict.OK, "proven: embedding"),
        (Model("meaning", mistakes=1), Verdict.OK, "proven"),
        (Model("letters"), Verdict.INCONCLUSIVE, "not judged: "),
        (Model("one for all"), Verdict.WRONG_ANSWER, "0 of 3 texts"),
        (Model("chance"), Verdict.WRONG_ANSWER, "two vectors of the same text"),
        (Model("none"), Verdict.INCONCLUSIVE, "gives no embeddings"),
    ],
)
def test_vectors_are_judged_by_the_order_of_their_similarities(
    model: Model, verdict: Verdict, words: str
) -> None:
    result = prove_embedding(model)
    assert result.verdict is verdict
    assert words in result.detail
    assert list(result.capabilities) == ["embedding"]
