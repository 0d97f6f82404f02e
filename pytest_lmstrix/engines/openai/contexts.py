"""The context in force, as servers report it outside of OpenAI's interface.

Sources: the documentation or the code of llama.cpp's server (`/props`, which llamafile has too),
LM Studio (`/api/v0/models`), Ollama (`/api/ps`), TabbyAPI (`/v1/model`), koboldcpp, Lemonade
(`/v1/health`) and Text Generation Inference (`/info`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.engines.openai.client import OpenAiClient, PathMissing

NOT_LOADED = 0
"""Instead of a context length: the server loads the model when it is first asked."""
_DEFAULT_TAG = ":latest"


class _Answer(Struct):
    def context_of(self, name: str) -> int | None:
        """Return the context of a model, tokens; `None` if it is not reported."""
        raise NotImplementedError


class _SlotSettings(Struct):
    n_ctx: int


class _Props(_Answer):
    default_generation_settings: _SlotSettings

    def context_of(self, name: str) -> int | None:
        return self.default_generation_settings.n_ctx or None


class _Router(_Answer):
    role: str

    def context_of(self, name: str) -> int | None:
        return NOT_LOADED if self.role == "router" else None


class _StudioModel(Struct):
    id: str
    state: str
    loaded_context_length: int | None = None


class _StudioModels(_Answer):
    data: list[_StudioModel]

    def context_of(self, name: str) -> int | None:
        found = next((model for model in self.data if model.id == name), None)
        if found is None:
            return None
        return found.loaded_context_length if found.state == "loaded" else NOT_LOADED


class _OllamaModel(Struct):
    name: str
    context_length: int | None = None


class _OllamaModels(_Answer):
    models: list[_OllamaModel] | None

    def context_of(self, name: str) -> int | None:
        names = (name, f"{name}{_DEFAULT_TAG}")
        found = (model for model in self.models or () if model.name in names)
        running = next(found, None)
        return NOT_LOADED if running is None else running.context_length


class _TabbyParameters(Struct):
    max_seq_len: int


class _TabbyModel(_Answer):
    id: str
    parameters: _TabbyParameters

    def context_of(self, name: str) -> int | None:
        return self.parameters.max_seq_len if self.id == name else None


class _Kobold(_Answer):
    value: int

    def context_of(self, name: str) -> int | None:
        return self.value or None


class _LemonadeModel(Struct):
    model_name: str
    recipe_options: dict[str, Any] = {}


class _Lemonade(_Answer):
    all_models_loaded: list[_LemonadeModel]

    def context_of(self, name: str) -> int | None:
        found = (model for model in self.all_models_loaded if model.model_name == name)
        loaded = next(found, None)
        if loaded is None:
            return NOT_LOADED
        size = loaded.recipe_options.get("ctx_size")
        return size if isinstance(size, int) and size > 0 else None


class _TextGenerationInference(_Answer):
    max_total_tokens: int

    def context_of(self, name: str) -> int | None:
        return self.max_total_tokens


def _asks(name: str) -> Iterator[tuple[str, type[_Answer]]]:
    yield f"/props?model={quote(name, safe='')}&autoload=false", _Props
    yield "/props", _Router
    yield "/api/v0/models", _StudioModels
    yield "/api/ps", _OllamaModels
    yield "/v1/model", _TabbyModel
    yield "/api/extra/true_max_context_length", _Kobold
    yield "/v1/health", _Lemonade
    yield "/info", _TextGenerationInference


def ask_context(client: OpenAiClient, name: str) -> int | None:
    """Ask a server for the context in force of model `name`; `None` if it does not report it."""
    for path, kind in _asks(name):
        with suppress(Failure, PathMissing):
            answer = client.get(path, kind, phase="connect")
            if (context := answer.context_of(name)) is not None:
                return context
    return None
