"""Serialized errors with the texts of LM Studio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, to_builtins


class ServerError(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A serialized error, as in `rpcError` and `channelError`."""

    title: str = ""
    cause: str | None = None
    suggestion: str | None = None
    error_data: dict[str, Any] | None = None
    display_data: dict[str, Any] | None = None
    root_title: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON object that is sent."""
        wire: dict[str, Any] = to_builtins(self)
        return {"title": self.title, "rootTitle": self.root_title or self.title} | wire


class Refused(Exception):
    """A call that is answered with `error`; `fatal` if it crashes the instance."""

    def __init__(self, error: ServerError, *, fatal: bool = False) -> None:
        super().__init__(error.title)
        self.error = error
        self.fatal = fatal


def _coded(title: str, code: str, **data: object) -> ServerError:
    return ServerError(title=title, display_data={"code": code, **data})


def path_not_found(key: str, known: Sequence[str]) -> ServerError:
    """A load of a model that is not on disk."""
    return _coded(
        f"Model not found: {key}",
        "generic.pathNotFound",
        path=key,
        availablePathsSample=list(known[:5]),
        totalModels=len(known),
    )


def domain_mismatch(key: str, actual: str, expected: str) -> ServerError:
    """A load in the wrong namespace."""
    return _coded(
        f"Model not in domain: {key}",
        "generic.domainMismatch",
        path=key,
        actualDomain=actual,
        expectedDomain=expected,
    )


def no_matching_model(query: dict[str, Any], loaded: Sequence[str]) -> ServerError:
    """A use or an unload of an instance that is not loaded."""
    return _coded(
        "No model found that fits the query.",
        "generic.noModelMatchingQuery",
        query=query,
        loadedModelsSample=list(loaded[:5]),
        totalLoadedModels=len(loaded),
    )


def model_unloaded(reference: str) -> ServerError:
    """A use of an instance reference that no longer exists."""
    return _coded(
        "Model is unloaded.", "generic.specificModelUnloaded", instanceReference=reference
    )


def already_exists(identifier: str) -> ServerError:
    """A load under an identifier that is in use."""
    return ServerError(title=f"Model with identifier '{identifier}' already exists.")


def guardrail(needed_bytes: int) -> ServerError:
    """Refused by the memory estimate; only the text shows it."""
    return ServerError(
        title=(
            "Model loading was stopped due to insufficient system resources. Under the current "
            f"settings, this model requires approximately {needed_bytes / 1e9:.2f} GB of memory, "
            "and continuing to load it would likely overload your system and cause it to freeze. "
            "If you think this is incorrect, you can adjust the model loading guardrails in "
            "settings."
        )
    )


def cannot_allocate(needed_bytes: int) -> ServerError:
    """The memory allocation fails while loading."""
    return ServerError(
        title="Failed to load model",
        cause=f"error loading model: unable to allocate CPU buffer of size {needed_bytes}",
    )


def insufficient_memory() -> ServerError:
    """The memory allocation fails at the first prediction."""
    metal = "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
    return ServerError(title=f"Metal error: {metal}, Metal error: {metal}")


def load_crashed(exit_code: int | None) -> ServerError:
    """The engine died while loading."""
    code = "null" if exit_code is None else exit_code
    return ServerError(
        title="Error loading model.",
        cause=f"(Exit code: {code}). Unknown error. Try a different model and/or config.",
    )


def prediction_crashed(exit_code: int | None) -> ServerError:
    """The engine died while predicting."""
    code = "null" if exit_code is None else exit_code
    return ServerError(
        title=f"The model has crashed without additional information. (Exit code: {code})"
    )


def cache_corrupted() -> ServerError:
    """The memory state of an instance is corrupted; the instance is gone."""
    return ServerError(title="Unable to reuse from cache: llama_memory is null")


def file_corrupted() -> ServerError:
    """The model file is truncated."""
    return ServerError(
        title="Failed to load model",
        cause="llama_model_load: error loading model: tensor 'blk.2.ffn_down.weight' data is not "
        "within the file bounds, model is corrupted or incomplete",
    )


def unknown_architecture(name: str) -> ServerError:
    """No runtime supports the architecture."""
    return ServerError(
        title="Failed to load model",
        cause=f"error loading model: error loading model architecture: unknown model "
        f"architecture: '{name}'",
    )


def prompt_too_long(prompt_tokens: int, context_length: int) -> ServerError:
    """The prompt does not fit the granted context."""
    return ServerError(
        title="The number of tokens to keep from the initial prompt is greater than the context "
        f"length (n_keep: {prompt_tokens} >= n_ctx: {context_length}). Try to load the model with "
        "a larger context length, or provide a shorter prompt."
    )


def text_too_long(tokens: int, context_length: int) -> ServerError:
    """A text to embed does not fit the granted context."""
    return ServerError(
        title=f"input ({tokens} tokens) is larger than the max context size"
        f" ({context_length} tokens). skipping"
    )


def context_exceeded() -> ServerError:
    """The prompts of all requests at once do not fit in the window that they share."""
    return ServerError(title="Context size has been exceeded.")


def canceled() -> ServerError:
    """A load that was cancelled."""
    return ServerError(title="Operation canceled.")


def unloaded_while_predicting() -> ServerError:
    """An instance that was unloaded during a prediction."""
    return ServerError(title="Model unloaded.")
