"""The messages of the protocol, and their validation by the SDK's types."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
from lmstudio import _kv_config as kv
from lmstudio import _sdk_models as sdk
from msgspec import UNSET, Meta, Struct, UnsetType

from tests.standin.lmstudio.versions import NEW_KEYS

NAMESPACES = ("llm", "embedding", "system", "files", "repository")


class Auth(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The first message of a connection."""

    auth_version: int
    client_identifier: str
    client_passkey: str


class RpcCall(
    Struct, frozen=True, rename="camel", tag_field="type", tag="rpcCall", forbid_unknown_fields=True
):
    """A remote procedure call."""

    endpoint: str
    call_id: int
    parameter: dict[str, Any] | UnsetType = UNSET


class ChannelCreate(
    Struct,
    frozen=True,
    rename="camel",
    tag_field="type",
    tag="channelCreate",
    forbid_unknown_fields=True,
):
    """The opening of a channel."""

    endpoint: str
    channel_id: int
    creation_parameter: dict[str, Any] | UnsetType = UNSET


class ChannelSend(
    Struct,
    frozen=True,
    rename="camel",
    tag_field="type",
    tag="channelSend",
    forbid_unknown_fields=True,
):
    """A message within a channel; clients can only cancel."""

    channel_id: int
    message: dict[str, Any]


class KeepAlive(Struct, frozen=True, tag_field="type", tag="keepAlive", forbid_unknown_fields=True):
    """A keep-alive message."""


Frame = RpcCall | ChannelCreate | ChannelSend | KeepAlive


def decode_frame(text: str) -> Frame:
    """Parse the frame in `text`.

    Raises:
        ValueError: It is not a valid frame.
    """
    # Unlike msgspec, json reads lone surrogates, which prompts may hold.
    frame: Frame = msgspec.convert(json.loads(text), Frame)
    return frame


class EstimateModelUsage(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Parameter of `estimateModelUsage`, which the SDK does not know."""

    model_key: str
    load_config_stack: sdk.KvConfigStack


class Unload(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Parameter of `unloadModel`."""

    identifier: str
    device_identifier: str | None = None


class Variants(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Parameter of `listDownloadedModelVariants`."""

    model_key: str


class LoadModel(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Creation parameter of `loadModel`."""

    model_key: str
    load_config_stack: sdk.KvConfigStack
    identifier: str | None = None
    device_identifier: str | UnsetType | None = UNSET
    ttl_ms: Annotated[int, Meta(ge=1)] | None = None


_LLM_OR_EMBEDDING: dict[str, tuple[Any, Any]] = {
    "unloadModel": (Unload, Unload),
    "getModelInfo": (sdk.LlmRpcGetModelInfoParameter, sdk.EmbeddingRpcGetModelInfoParameter),
    "getLoadConfig": (sdk.LlmRpcGetLoadConfigParameter, sdk.EmbeddingRpcGetLoadConfigParameter),
    "tokenize": (sdk.LlmRpcTokenizeParameter, sdk.EmbeddingRpcTokenizeParameter),
    "countTokens": (sdk.LlmRpcCountTokensParameter, sdk.EmbeddingRpcCountTokensParameter),
    "listLoaded": (None, None),
    "estimateModelUsage": (EstimateModelUsage, EstimateModelUsage),
}
RPCS: dict[tuple[str, str], Any] = {
    ("system", "listDownloadedModels"): None,
    ("system", "version"): None,
    ("system", "listDownloadedModelVariants"): Variants,
    ("files", "uploadFileBase64"): sdk.FilesRpcUploadFileBase64Parameter,
    ("llm", "applyPromptTemplate"): sdk.LlmRpcApplyPromptTemplateParameter,
    ("embedding", "embedString"): sdk.EmbeddingRpcEmbedStringParameter,
    **{("llm", name): types[0] for name, types in _LLM_OR_EMBEDDING.items()},
    **{("embedding", name): types[1] for name, types in _LLM_OR_EMBEDDING.items()},
}
"""The type of the parameter of each RPC; `None` for no parameter."""
CHANNELS: dict[tuple[str, str], Any] = {
    ("llm", "loadModel"): LoadModel,
    ("llm", "getOrLoad"): sdk.LlmChannelGetOrLoadCreationParameter,
    ("llm", "predict"): sdk.PredictionChannelRequest,
    ("embedding", "loadModel"): LoadModel,
    ("embedding", "getOrLoad"): sdk.EmbeddingChannelGetOrLoadCreationParameter,
}
"""The type of the creation parameter of each channel."""


def parse(types: dict[tuple[str, str], Any], namespace: str, endpoint: str, given: Any) -> Any:
    """Convert `given` to the parameter type of this endpoint.

    Raises:
        ValueError: The endpoint does not exist, or `given` is not valid for it.
    """
    if (namespace, endpoint) not in types:
        raise ValueError(f"unknown endpoint {namespace}.{endpoint}")
    wanted = types[namespace, endpoint]
    if wanted is None:
        if given is not UNSET:
            raise ValueError(f"{endpoint} takes no parameter, got {given}")
        return None
    parameter = msgspec.convert(given if given is not UNSET else None, wanted)
    for stack in ("load_config_stack", "prediction_config_stack"):
        if hasattr(parameter, stack):
            check_settings(settings(getattr(parameter, stack)))
    return parameter


def settings(stack: sdk.KvConfigStack) -> dict[str, Any]:
    """Return the settings of a stack by key; later layers override earlier ones."""
    return {f.key: f.value for layer in stack.layers for f in layer.config.fields}


def check_settings(given: dict[str, Any]) -> None:
    """Check that LM Studio has these settings with these types.

    Raises:
        ValueError: It does not have them.
    """
    if unknown := given.keys() - kv.FROM_SERVER_CONFIG.keys() - NEW_KEYS.keys():
        raise ValueError(f"unknown settings {sorted(unknown)}")
    client_side = kv.parse_server_config(fields(given))
    for prefix, wanted in (
        ("llm.load.", sdk.LlmLoadModelConfig),
        ("embedding.load.", sdk.EmbeddingLoadModelConfig),
        ("llm.prediction.", sdk.LlmPredictionConfig),
    ):
        if any(key.startswith(prefix) for key in given):
            msgspec.convert(client_side, wanted)


def fields(given: dict[str, Any]) -> dict[str, Any]:
    """Settings by key, as transmitted."""
    return {"fields": [{"key": key, "value": value} for key, value in given.items()]}
