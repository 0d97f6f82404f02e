"""Translates Ollama's models and load settings to ours and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ModelFacts
from pytest_lmstrix.core.verdicts import Verdict

_OWN = ("completion", "embedding", "insert")
"""Capabilities that are not worth recording."""
_OPTIONS = {"gpu_layers": "num_gpu", "batch_size": "num_batch", "threads": "num_thread"}
"""Load settings -> Ollama's options."""
_REGISTRY, _NAMESPACE = "registry.ollama.ai/", "library/"
_ENCODERS = ("bert",)
"""Families of models that only embed, where the capabilities are not listed (before 0.6.4)."""


class Details(Struct):
    """The properties of a model's file."""

    family: str | None = None
    quantization_level: str | None = None
    context_length: int | None = None


class Tag(Struct):
    """An entry of `/api/tags`."""

    name: str
    size: int | None = None
    digest: str | None = None
    details: Details | None = None
    capabilities: tuple[str, ...] | None = None
    remote_model: str | None = None
    """The model in the cloud that it stands for."""


class Tags(Struct):
    """The answer of `/api/tags`."""

    models: tuple[Tag, ...] | None


class ShownModel(Struct):
    """The answer of `/api/show`."""

    model_info: dict[str, Any] | None = None
    capabilities: tuple[str, ...] | None = None
    remote_model: str | None = None


class Running(Struct):
    """An entry of `/api/ps`."""

    name: str
    size: int | None = None
    size_vram: int | None = None
    digest: str | None = None
    expires_at: str | None = None
    context_length: int | None = None


class RunningModels(Struct):
    """The answer of `/api/ps`."""

    models: tuple[Running, ...] | None


def full_name(name: str) -> str:
    """Return `name` as Ollama lists it, in lower case: case does not matter.

    `latest` is the default tag; the default registry and its namespace are left out.
    """
    name = name.lower().removeprefix(_REGISTRY).removeprefix(_NAMESPACE)
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def facts_from(tag: Tag, shown: ShownModel | None) -> ModelFacts:
    """Return the facts of a listed model; `shown` is needed where the listing lacks fields."""
    details = tag.details or Details()
    info = (shown.model_info if shown else None) or {}
    capabilities = tag.capabilities or (shown.capabilities if shown else None)
    architecture = _text(info.get("general.architecture")) or details.family
    if capabilities is None:
        embeds = any(word in (architecture or "") for word in _ENCODERS)
    else:
        embeds = "embedding" in capabilities and "completion" not in capabilities
    limit = details.context_length or info.get(f"{architecture}.context_length")
    return ModelFacts(
        id=tag.name,
        type="embedding" if embeds else "llm",
        context_limit=limit if isinstance(limit, int) and limit > 0 else None,
        size_bytes=tag.size,
        architecture=architecture,
        quantization=details.quantization_level or None,
        capabilities=tuple(each for each in capabilities or () if each not in _OWN),
        # The digest of its manifest, which names the weights, the template and the parameters.
        fingerprint=f"ollama:{tag.digest}" if tag.digest else None,
    )


def is_complete_tag(tag: Tag) -> bool:
    """Whether the listing itself has all facts (since 0.30)."""
    return bool(tag.details and tag.details.context_length and tag.capabilities)


def load_body(model: Model, context_length: int, keep_alive: int) -> Mapping[str, Any]:
    """Return the fields of every request for `model`: others would make Ollama reload it.

    Raises:
        Failure: A setting that Ollama has only for the whole server, or does not have.
    """
    return {
        "model": model.name,
        "options": _load_options(model, context_length),
        "keep_alive": keep_alive,
        # A reply ends where the context is full: else the start is dropped without a sign.
        "shift": False,
    }


def _load_options(model: Model, context_length: int) -> Mapping[str, int]:
    options = {"num_ctx": context_length}
    for setting, value in msgspec.structs.asdict(model.load).items():
        if value is None:
            continue
        if setting not in _OPTIONS:
            text = (
                f"model {model.id!r}: Ollama does not support load setting {setting}: {value!r};"
                f" it supports {', '.join(_OPTIONS)}"
            )
            raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="load")
        options[_OPTIONS[setting]] = value
    return options


def gpu_note(running: Running) -> str | None:
    """Return the share of a loaded model that is in the GPU's memory; `None` if not reported."""
    if not running.size or running.size_vram is None:
        return None
    share = running.size_vram / running.size
    if share >= 1:
        return "gpu: all of it"
    if share <= 0:
        return "gpu: none of it; it computes on the CPU"
    rest = 1 - share
    return f"gpu: {share:.0%} of it; {rest:.0%} is in the memory of the CPU, which is slower"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
