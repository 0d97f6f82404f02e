"""A loaded embedding model as users' tests ask it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

from pytest_lmstrix.checks.requests import arguments
from pytest_lmstrix.checks.requests.embedding_context import (
    SPARE_TOKENS,
    ContextProof,
    prove_context,
    too_long_text,
)
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.sanitize import clean
from pytest_lmstrix.core.types import Model, Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Embeds
from pytest_lmstrix.engines.request import Embeddings, Unable
from pytest_lmstrix.probes.vectors import Vector, cosine, norm

NORM_TOLERANCE = 0.01
"""How far the length of a normalized vector may be from 1: some are rounded to half precision."""
_COUNTED_CHARACTERS = 1_000
"""The tokens of a longer text are counted, to notice that an engine cuts it."""
_SHARE_OF_COUNT = 50
_TEXTS = ("A cat sleeps.", "Interest rates rose again, and the bank said why.", "Hello")
_SHOWN_CHARACTERS = 100


class EmbeddingModel:
    """An embedding model at a context length: the value of the fixture `lmstrix_embedding`."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._dimension: int | None = None

    @property
    def model(self) -> Model:
        """The entry of the manifest."""
        return self._loaded.model

    @property
    def context_length(self) -> int:
        """Granted by the engine, tokens."""
        return self._loaded.context_length

    @property
    def load_seconds(self) -> float:
        return self._loaded.load_seconds

    @property
    def peak_memory_bytes(self) -> int | None:
        return self._loaded.peak_memory_bytes

    @property
    def dimension(self) -> int:
        """The numbers of a vector."""
        if self._dimension is None:
            self._dimension = len(self.embed(_TEXTS[0]))
        return self._dimension

    @overload
    def embed(self, texts: str) -> list[float]: ...  # type: ignore[overload-overlap]

    @overload
    def embed(self, texts: Sequence[str]) -> list[list[float]]: ...

    def embed(self, texts: str | Sequence[str]) -> list[float] | list[list[float]]:
        """Return the vector of a text, or the vectors of several.

        Raises:
            TypeError: A mistake in the arguments, as is `ValueError`.
            Unable: The engine gives no embeddings.
            Failure: The engine failed, or cut a text that is longer than the context.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        if not given:
            raise ValueError("embed needs at least one text")
        for text in given:
            if not arguments.read_text(text, "a text"):
                raise ValueError("a text to embed must not be empty")
        vectors = self._embeddings(given).vectors
        return vectors[0] if isinstance(texts, str) else vectors

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` in the model's own vocabulary, without special ones."""
        return self._loaded.count_tokens(text)

    def similarity(self, one: str | Vector, other: str | Vector) -> float:
        """Return the cosine similarity of two texts or vectors, -1..1."""
        first, second = (self.embed(each) if isinstance(each, str) else each
                         for each in (one, other))  # fmt: skip
        return cosine(first, second)

    def ranked(self, query: str, texts: Sequence[str]) -> list[str]:
        """Return `texts`, those most similar to `query` first."""
        return [text for _, text in self._similar(query, texts)]

    def check_order(self, query: str, texts: Sequence[str]) -> None:
        """Check that each of `texts` is more similar to `query` than those after it.

        Raises:
            AssertionError: It is not.
        """
        found = self._similar(query, texts)
        if [text for _, text in found] != list(texts):
            lines = [f"{similarity:+.4f} {clean(text, _SHOWN_CHARACTERS)!r}"
                     for similarity, text in found]  # fmt: skip
            order = "\n".join(lines)
            raise AssertionError(f"the order by similarity to {query!r} is another:\n{order}")

    def check_normalized(self) -> None:
        """Check that vectors have the length 1, so that their dot product is the similarity.

        Raises:
            AssertionError: They have not.
        """
        lengths = [norm(vector) for vector in self.embed(_TEXTS)]
        if any(abs(length - 1) > NORM_TOLERANCE for length in lengths):
            found = ", ".join(f"{length:.4g}" for length in lengths)
            raise AssertionError(f"the vectors are not normalized: their lengths are {found}")

    def check_context(self) -> ContextProof:
        """Fill the context, and check that its start, middle and end change the vector.

        Raises:
            Failure: The engine refuses the filled context, or cuts it.
        """
        size = self._loaded.asked_context_length
        proof = prove_context(size, self._embedded, self.count_tokens)
        self._loaded.replies.append(Reply(text=str(proof)))
        return proof

    def check_overflow(self) -> str:
        """Send a text longer than the context, which must be an error; return the error's words.

        Raises:
            Failure: `prompt_truncated` if the engine cuts the text without an error.
        """
        room = self._loaded.usable_context_length
        text = too_long_text(room, self.count_tokens)
        try:
            self._embeddings([text])
        except Failure as failure:
            if failure.verdict is not Verdict.CONTEXT_TOO_LARGE:
                raise
            self._loaded.failed = False  # a refusal leaves the instance as it was
            words = clean(failure.text)
            self._loaded.replies.append(Reply(text=f"refused: {words}"))
            return words
        raise Failure(
            f"a text of {self.count_tokens(text):,} tokens got a vector, in a context of {room:,}:"
            " it was not cut, so the server has more context than it was tested with",
            verdict=Verdict.INCONCLUSIVE,
        )

    def _similar(self, query: str, texts: Sequence[str]) -> list[tuple[float, str]]:
        wanted, *vectors = self.embed([query, *texts])
        pairs = [(cosine(wanted, each), text) for each, text in zip(vectors, texts, strict=True)]
        return sorted(pairs, key=lambda pair: pair[0], reverse=True)

    def _embedded(self, text: str) -> tuple[list[float], int | None]:
        found = self._embeddings([text])
        return found.vectors[0], found.prompt_tokens

    def _embeddings(self, texts: list[str]) -> Embeddings:
        instance = self._loaded.instance()
        if not isinstance(instance, Embeds):
            raise Unable(f"engine {self.model.engine!r} gives no embeddings")

        def ask() -> Embeddings:
            found = instance.embed(texts)
            _check_vectors(found, len(texts))
            return found

        found = self._loaded.recorded(instance, ask, _recorded_as, ("embeddings",))
        self._check_whole(texts, found)
        return found

    def _check_whole(self, texts: list[str], found: Embeddings) -> None:
        """Raises:
        Failure: The engine has cut a text.
        """
        room = self._loaded.usable_context_length
        taken = found.prompt_tokens
        long = [text for text in texts if _may_be_cut(text, room)]
        if not long:
            return
        counts = [self.count_tokens(text) for text in texts if taken is not None or text in long]
        sent, longest = sum(counts), max(counts)
        text = f"sent {sent:,} tokens"
        if taken is None:
            cut = longest > room
            text = f"a text of {longest:,} tokens got a vector"
        else:
            cut = taken < sent and (longest > room or sent - taken > _tolerance(sent))
            text = f"{text}, {taken:,} arrived"
        if cut:
            text = f"{text}, in a context of {room:,}: the engine cut the text without an error"
            raise Failure(text, verdict=Verdict.PROMPT_TRUNCATED, phase="predict")


def _may_be_cut(text: str, room: int) -> bool:
    """Whether `text` is long, or may exceed the context: a token has at least one byte."""
    return len(text) > _COUNTED_CHARACTERS or len(text.encode()) + SPARE_TOKENS > room


def _tolerance(tokens: int) -> int:
    """Return how far two counts of a text may differ: some are made of its parts."""
    return max(SPARE_TOKENS, tokens // _SHARE_OF_COUNT)


def _check_vectors(found: Embeddings, texts: int) -> None:
    """Raises:
    Failure: There is not one vector for each text, or they cannot be compared.
    """
    dimensions = {len(vector) for vector in found.vectors}
    problem = ""
    if len(found.vectors) != texts:
        problem = f"{len(found.vectors):,} vectors for {texts:,} texts"
    elif len(dimensions) != 1 or 0 in dimensions:
        sizes = ", ".join(f"{size:,}" for size in sorted(dimensions))
        problem = f"vectors of {sizes} numbers"
    elif not all(math.isfinite(value) for vector in found.vectors for value in vector):
        problem = "a vector with numbers that are not finite"
    elif not all(map(any, found.vectors)):
        problem = "a vector of zeros"
    if problem:
        text = f"the engine returned {problem}"
        raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="predict")


def _recorded_as(found: Embeddings) -> Reply:
    many = f"{len(found.vectors):,} vectors" if len(found.vectors) > 1 else "a vector"
    text = f"{many} of {len(found.vectors[0]):,} numbers"
    return Reply(text=text, prompt_tokens=found.prompt_tokens)
