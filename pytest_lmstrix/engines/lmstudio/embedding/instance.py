"""An embedding model loaded in LM Studio by us."""

from __future__ import annotations

from collections.abc import Sequence

from lmstudio import Client, EmbeddingModel

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.lmstudio.instance import SLOWEST_PREFILL, LmStudioInstance
from pytest_lmstrix.engines.request import Embeddings, VectorsOnly


class LmStudioEmbeddingInstance(VectorsOnly, LmStudioInstance):
    """An instance that gives vectors; it cannot answer."""

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Return the vectors of `texts`; see `Embeds`.

        Raises:
            Failure: Among others, `prompt_truncated` for a text longer than the context that got a
                vector: LM Studio does not report how much of a text has counted.
        """
        counts = [self.count_tokens(text) for text in texts]
        vectors = [self._vector(text, tokens) for text, tokens in zip(texts, counts, strict=True)]
        if max(counts) > self.context_length:
            text = (
                f"a text of {max(counts):,} tokens got a vector, in a context of"
                f" {self.context_length:,}: LM Studio cut the text without an error"
            )
            raise Failure(text, verdict=Verdict.PROMPT_TRUNCATED, phase="predict")
        return Embeddings(vectors=vectors)

    def count_tokens(self, text: str) -> int:
        """Count the tokens of `text` in the model's vocabulary."""
        return self._ask(lambda client: self._handle(client).count_tokens(text), "counting tokens")

    def _vector(self, text: str, tokens: int) -> list[float]:
        patience = max(self._engine.reply_timeout, tokens / SLOWEST_PREFILL)
        try:
            with self._engine.link.talking(
                "predict", "embedding a text", patience, namespace="embedding"
            ) as client:
                vector = self._handle(client).embed(text)
        except BaseException as error:
            if not isinstance(error, Failure) or error.verdict is Verdict.TIMEOUT:
                self._lost = error if isinstance(error, Failure) else None
                self._engine.abandon(self.identifier, error, loading=False)
            raise
        return [float(value) for value in vector if isinstance(value, int | float)]

    def _handle(self, client: Client) -> EmbeddingModel:
        return EmbeddingModel(self.identifier, client.embedding)
