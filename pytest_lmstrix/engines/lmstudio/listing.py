"""Translates LM Studio's models and load settings to ours and back. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import cast

import msgspec
from lmstudio import LlmLoadModelConfigDict

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ModelFacts, ModelType, fingerprint
from pytest_lmstrix.core.verdicts import Verdict

_log = logging.getLogger(__name__)


class _Quantization(msgspec.Struct):
    name: str | None = None


class _Listed(msgspec.Struct, rename="camel"):
    model_key: str
    type: ModelType
    path: str | None = None
    size_bytes: int | None = None
    max_context_length: int | None = None
    architecture: str | None = None
    quantization: _Quantization | None = None
    vision: bool = False
    trained_for_tool_use: bool = False


def listed_models(listing: Iterable[object]) -> list[ModelFacts]:
    """Return the models of a raw listing; invalid entries are logged and left out."""
    models = []
    for entry in listing:
        try:
            listed = msgspec.convert(entry, _Listed)
        except msgspec.ValidationError as error:
            key = entry.get("modelKey") if isinstance(entry, dict) else entry
            _log.warning("left out %r, which LM Studio lists: %s", key, error)
        else:
            models.append(_facts(listed))
    return models


def _facts(listed: _Listed) -> ModelFacts:
    has = {"vision": listed.vision, "tools": listed.trained_for_tool_use}
    return ModelFacts(
        id=listed.model_key,
        type=listed.type,
        context_limit=listed.max_context_length,
        size_bytes=listed.size_bytes,
        path=listed.path,
        architecture=listed.architecture,
        quantization=listed.quantization.name if listed.quantization else None,
        capabilities=tuple(name for name, there in has.items() if there),
        fingerprint=fingerprint(sha256=None, size_bytes=listed.size_bytes, path=listed.path),
    )


def load_config(model: Model, context_length: int) -> LlmLoadModelConfigDict:
    """Return the SDK's load configuration for `model`.

    With `gpu_offload` it also makes the server split layers evenly over several GPUs.

    Raises:
        Failure: A setting is not LM Studio's. The SDK would drop it without a word.
    """
    config: dict[str, object] = {"contextLength": context_length}
    for setting, value in msgspec.structs.asdict(model.load).items():
        match setting, value:
            case _, None:
                pass
            case "kv_cache_type", str() if value != "bf16":
                config["llamaKCacheQuantizationType"] = value
                config["llamaVCacheQuantizationType"] = value
            case "flash_attention", bool():
                config["flashAttention"] = value
            case "gpu_offload", float() | int():
                config["gpu"] = {"ratio": float(value)}
            case "batch_size", int():
                config["evalBatchSize"] = value
            case _:
                raise _not_honoured(model, setting, value)
    return cast(LlmLoadModelConfigDict, config)


def _not_honoured(model: Model, setting: str, value: object) -> Failure:
    honoured = "kv_cache_type (not bf16), flash_attention, gpu_offload, batch_size"
    text = (
        f"model {model.id!r}: LM Studio does not support load setting {setting}: {value!r};"
        f" it supports {honoured}"
    )
    return Failure(text, verdict=Verdict.ENGINE_ERROR, phase="load")
