"""An embedding model loaded in Ollama by us.

Source: `EmbedHandler` in https://github.com/ollama/ollama/blob/main/server/routes.go
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ModelFacts
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.ollama.instance import OllamaInstance, OllamaLoad
from pytest_lmstrix.engines.request import Embeddings, VectorsOnly

if TYPE_CHECKING:
    from pytest_lmstrix.engines.ollama.engine import OllamaEngine

_PATH = "/api/embed"
_SLOWEST = 50.0
"""Tokens per second below which a request counts as hung."""


class _Embedded(Struct):
    embeddings: list[list[float]] | None = None
    prompt_eval_count: int | None = None


class OllamaEmbeddingInstance(VectorsOnly, OllamaInstance):
    """An instance that gives vectors; it cannot answer."""

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Return the vectors of `texts`, none of them cut; see `Embeds`."""
        if self._unloaded:
            raise Failure("the model is unloaded", verdict=Verdict.ENGINE_ERROR, phase="predict")
        self._engine.check_held(self._loaded.path)
        tokens = sum(len(text.encode()) for text in texts) / 2
        body = {**self._loaded.body, "input": list(texts), "truncate": False}
        answer = self._engine.client.post(
            _PATH, body, _Embedded, phase="predict",
            silence_seconds=max(self._engine.reply_timeout, tokens / _SLOWEST),
        )  # fmt: skip
        return Embeddings(
            vectors=answer.embeddings or [], prompt_tokens=answer.prompt_eval_count or None
        )

    def _measure(self, piece: str) -> int:
        tokens = self.embed([piece]).prompt_tokens
        if tokens is None:
            text = "this Ollama does not report the tokens of a text to embed"
            raise Failure(text, verdict=Verdict.INCONCLUSIVE, phase="predict")
        return tokens


def load_request(
    model: Model, facts: ModelFacts | None, body: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any]]:
    """Return path and body of the request that loads a model: one without a text."""
    if _embeds(model, facts):
        return _PATH, {**body, "input": []}
    return "/api/generate", {**body, "stream": False}


def instance_of_load(
    engine: OllamaEngine, model: Model, loaded: OllamaLoad, progress: Progress
) -> OllamaInstance:
    kind = OllamaEmbeddingInstance if _embeds(model, loaded.facts) else OllamaInstance
    return kind(engine, loaded, progress)


def _embeds(model: Model, facts: ModelFacts | None) -> bool:
    return (model.type or (facts and facts.type)) == "embedding"
