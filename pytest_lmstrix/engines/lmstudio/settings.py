"""Load settings as LM Studio's keys: what is sent, and what of it is in force. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import KvCacheType, Model
from pytest_lmstrix.core.verdicts import Verdict

Runtime = Literal["llama", "mlx"]

CONTEXT = "llm.load.contextLength"
_EMBEDDING_CONTEXT = "embedding.load.contextLength"
_EMBEDDING_OFFLOAD = "embedding.load.llama.acceleration.offloadRatio"
SLOTS = "llm.load.numParallelSessions"
UNIFIED = "llm.load.useUnifiedKvCache"

AS_ASKED: Mapping[str, object] = {
    "llm.load.llama.autoFit": False,
    "llm.load.mlx.autoFit": False,
    "llm.load.yuzu.autoFit": False,
    SLOTS: 1,
}
"""Sent with every load: no fitting to memory, and no slots that share the context.

A server drops the keys that it does not know.
"""

_PLAIN_CACHE = {"checked": True, "value": "f16"}
"""The same as a cache type that is not checked."""
_MLX_BITS: Mapping[str, int] = {"q8_0": 8, "q4_0": 4}
_MLX_FULL_PRECISION: tuple[KvCacheType, ...] = ("f16", "bf16")


def option_fields(options: Mapping[str, Any]) -> dict[str, object]:
    """Return the prediction settings of optional arguments, also those that the SDK omits."""
    fields: dict[str, object] = {}
    if (seed := options.get("seed")) is not None:
        fields["llm.prediction.seed"] = {"checked": True, "value": seed}
    if stop := options.get("stop"):
        fields["llm.prediction.stopStrings"] = list(stop)
    if (schema := options.get("schema")) is not None:
        fields["llm.prediction.structured"] = {"type": "json", "jsonSchema": dict(schema)}
    if tools := options.get("tools"):
        declared = [tool.declaration for tool in tools]
        fields["llm.prediction.tools"] = {"type": "toolArray", "tools": declared}
    return fields


def thinking_fields(max_tokens: int, *, thinking: bool) -> dict[str, object]:
    """Return the settings of a chat with or without `thinking`, as far as the model can do that.

    Where it thinks, a quarter of `max_tokens` is left for the answer.
    """
    budget = {"checked": True, "value": max_tokens - max(1, max_tokens // 4)}
    return {
        "llm.prediction.reasoning.enableThinking": thinking,
        "llm.prediction.reasoning.budgetTokens": budget,
    }


class LoadFields(Struct, frozen=True, kw_only=True):
    """What a load asks for."""

    context_length: int | None
    """`None`: nothing is asked for, and LM Studio's own settings of the model hold."""
    by_setting: Mapping[str, Mapping[str, object]]
    """Load setting of the manifest -> the keys that it stands for."""
    unsupported: tuple[str, ...] = ()
    """Load settings that the model's runtime does not have."""
    requests: int = 1
    """Requests at once, each with a context of that length."""
    embeds: bool = False
    """Whether it is the load of an embedding model, whose keys are others."""

    def all(self) -> dict[str, object]:
        """Return every key that is sent."""
        if self.context_length is None:
            return {}
        fields: dict[str, object] = {CONTEXT: self.context_length * self.requests, **AS_ASKED}
        if self.embeds:
            fields = {_EMBEDDING_CONTEXT: self.context_length}
        for keys in self.by_setting.values():
            fields |= keys
        return fields


LM_STUDIOS_OWN = LoadFields(context_length=None, by_setting={})


class InForce(Struct, frozen=True, kw_only=True):
    """What the server reports of a load."""

    ignored_settings: tuple[str, ...] = ()
    """Load settings of the manifest that were asked for and not taken."""
    slots: int = 1
    """Parallel requests that share the context, each with its own part of it."""


def load_fields(model: Model, context_length: int, runtime: Runtime = "llama") -> LoadFields:
    """Return the keys for `model`, whose `runtime` decides which it has.

    Raises:
        Failure: A setting is not LM Studio's.
    """
    embeds = model.type == "embedding"
    by_setting: dict[str, Mapping[str, object]] = {}
    unsupported: list[str] = []
    for setting, value in msgspec.structs.asdict(model.load).items():
        if value is None:
            continue
        keys = _llama_keys(setting, value)
        if keys is None:
            raise _not_honoured(model, setting, value)
        if embeds:
            keys = {_EMBEDDING_OFFLOAD: value} if setting == "gpu_offload" else {}
        elif runtime == "mlx":
            keys = _mlx_keys(setting, value)
        if keys:
            by_setting[setting] = keys
        else:
            unsupported.append(setting)
    return LoadFields(
        context_length=context_length,
        by_setting=by_setting,
        unsupported=tuple(unsupported),
        requests=model.load.requests,
        embeds=embeds,
    )


def in_force(asked: LoadFields, reported: object) -> InForce:
    """Return which settings are in force, by the answer of `getLoadConfig`."""
    fields = _fields(reported)
    if fields is None:
        return InForce(ignored_settings=asked.unsupported)
    ignored = [
        setting
        for setting, keys in asked.by_setting.items()
        if not all(key in fields and _same(value, fields[key]) for key, value in keys.items())
    ]
    slots = fields.get(SLOTS)
    divided = isinstance(slots, int) and slots > 1 and fields.get(UNIFIED) is False
    return InForce(
        ignored_settings=(*asked.unsupported, *ignored),
        slots=slots if divided and isinstance(slots, int) else 1,
    )


def runtime_of(format: str | None) -> Runtime:
    """Return what runs a model of this `format` of LM Studio's listing."""
    return "mlx" if (format is not None and "safetensors" in format) or format == "mlx" else "llama"


def _llama_keys(setting: str, value: object) -> Mapping[str, object] | None:
    match setting, value:
        case "kv_cache_type", str() if value in get_args(KvCacheType) and value != "bf16":
            cache = {"checked": True, "value": value}
            return {
                "llm.load.llama.kCacheQuantizationType": cache,
                "llm.load.llama.vCacheQuantizationType": cache,
            }
        case "flash_attention", bool():
            return {"llm.load.llama.flashAttention": value}
        case "gpu_offload", float() | int():
            return {"llm.load.llama.acceleration.offloadRatio": float(value)}
        case "parallel", int():
            return {SLOTS: value}
        case "batch_size", int():
            return {"llm.load.llama.evalBatchSize": value}
    return None


def _mlx_keys(setting: str, value: object) -> Mapping[str, object]:
    if setting == "parallel":
        return {SLOTS: value}
    if setting != "kv_cache_type":
        return {}
    if value in _MLX_FULL_PRECISION:
        return {"llm.load.mlx.kvCacheQuantization": _mlx_cache(False, 8)}
    if isinstance(value, str) and value in _MLX_BITS:
        return {"llm.load.mlx.kvCacheQuantization": _mlx_cache(True, _MLX_BITS[value])}
    return {}


def _mlx_cache(enabled: bool, bits: int) -> Mapping[str, object]:
    # From the first token on, as llama.cpp does it; LM Studio's own default starts at 5,000.
    return {"enabled": enabled, "bits": bits, "groupSize": 64, "quantizedStart": 0}


def _fields(reported: object) -> dict[object, object] | None:
    fields = reported.get("fields") if isinstance(reported, dict) else None
    if not isinstance(fields, list):
        return None
    return {
        field["key"]: field.get("value")
        for field in fields
        if isinstance(field, dict) and isinstance(field.get("key"), str)
    }


def _same(asked: object, reported: object) -> bool:
    if asked == _PLAIN_CACHE and isinstance(reported, dict) and reported.get("checked") is False:
        return True
    if isinstance(asked, Mapping):
        return isinstance(reported, dict) and all(
            key in reported and _same(value, reported[key]) for key, value in asked.items()
        )
    # An offload of 1.0 is also reported as "max", and of 0.0 as "off".
    if type(asked) is float and isinstance(reported, str):
        return {"max": 1.0, "off": 0.0}.get(reported) == asked
    return asked == reported


def _not_honoured(model: Model, setting: str, value: object) -> Failure:
    honoured = "kv_cache_type (not bf16), flash_attention, gpu_offload, batch_size, parallel"
    text = (
        f"model {model.id!r}: LM Studio does not support load setting {setting}: {value!r};"
        f" it supports {honoured}"
    )
    return Failure(text, verdict=Verdict.ENGINE_ERROR, phase="load")
