"""Calls that the SDK does not offer: raw settings, and answers newer than its types."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import Any, ClassVar, Literal

import msgspec
from lmstudio import (
    Chat,
    Client,
    LlmLoadModelConfig,
    LlmLoadModelConfigDict,
    LlmPredictionStats,
    ToolCallRequest,
)
from lmstudio._sdk_models import LlmChannelLoadModelCreationParameter, ToolCallResultDataDict
from lmstudio.json_api import ChatResponseEndpoint, CompletionEndpoint, LoadModelEndpoint
from lmstudio.schemas import LMStudioStruct
from lmstudio.sync_api import PredictionStream

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, ToolCall

Fields = Mapping[str, object]
EMBEDS = "embedding_"
"""How the last part of the identifier of an embedding model begins."""

STOP_REASONS: frozenset[str] = frozenset(
    (
        "eosFound",
        "stopStringFound",
        "toolCalls",
        "maxPredictedTokensReached",
        "contextLengthReached",
        "userStopped",
        "modelUnloaded",
        "failed",
    )
)
"""The reasons that the SDK reads."""


MEASURABLE_PROMPT_TOKENS = 512
"""With fewer, the time to the first token measures the connection more than the prefill."""


class _Query(LMStudioStruct[dict[str, object]], rename="camel"):
    specifier: dict[str, object]
    throw_if_not_found: bool | msgspec.UnsetType = msgspec.UNSET


class _Unload(LMStudioStruct[dict[str, object]], rename="camel"):
    identifier: str
    device_identifier: str | msgspec.UnsetType = msgspec.UNSET


class _Variants(LMStudioStruct[dict[str, object]], rename="camel"):
    model_key: str


class _Usage(LMStudioStruct[dict[str, object]], rename="camel"):
    model_key: str
    load_config_stack: dict[str, object]


def load(
    client: Client,
    key: str,
    identifier: str,
    fields: Fields,
    *,
    ttl_seconds: int,
    device: str | msgspec.UnsetType | None,
    hear: Callable[[float], None],
) -> None:
    """Load a new instance with `fields` as they are; the SDK's own call drops unknown ones.

    `device` is the linked device that has the model, `None` this one; unset is for servers that
    have no such devices.
    """
    endpoint = _Load(key, identifier, ttl_seconds, hear)
    endpoint.send("loadConfigStack", fields)
    if device is not msgspec.UNSET:
        endpoint.creation_params_beside["deviceIdentifier"] = device
    with _session(client, identifier)._create_channel(endpoint) as channel:
        channel.wait_for_result()


def unload(client: Client, identifier: str, device: str | None = None) -> None:
    _session(client, identifier).remote_call(
        "unloadModel", _Unload(identifier, device or msgspec.UNSET)
    )


def instance_info(client: Client, identifier: str) -> object:
    """Return the server's description of a loaded instance, unread."""
    return _session(client, identifier).remote_call(
        "getModelInfo", _Query(_specifier(identifier), True)
    )


def load_config(client: Client, identifier: str) -> object:
    """Return the load settings in force, unread."""
    return _session(client, identifier).remote_call("getLoadConfig", _Query(_specifier(identifier)))


def variants(client: Client, key: str) -> object:
    """Return the listing of the variants of a model, unread."""
    return client.system.remote_call("listDownloadedModelVariants", _Variants(key))


def usage(client: Client, key: str, fields: Fields) -> object:
    """Return the estimated memory of a load with `fields`, unread."""
    stack: dict[str, object] = {"layers": [_layer(fields)]}
    return client.llm.remote_call("estimateModelUsage", _Usage(key, stack))


def complete(
    client: Client,
    identifier: str,
    prompt: str,
    config: Any,
    fields: Fields,
    hear: Callable[[float], None],
) -> PredictionStream:
    """Stream the continuation of `prompt`, without a chat template; `fields` as for `respond`."""
    endpoint = _Completion(identifier, prompt, None, config, None, None, None, None, hear)
    endpoint.send("predictionConfigStack", fields)
    return PredictionStream(client.llm._create_channel(endpoint), endpoint)


def respond(
    client: Client,
    identifier: str,
    history: Chat,
    config: Any,
    fields: Fields,
    hear: Callable[[float], None],
) -> PredictionStream:
    """Stream the answer to `history`; `fields` are settings that the SDK does not know."""
    endpoint = _Response(identifier, history, None, config, None, None, None, None, hear)
    endpoint.send("predictionConfigStack", fields)
    return PredictionStream(client.llm._create_channel(endpoint), endpoint)


def history_of(messages: Iterable[Message]) -> Chat:
    """Return messages as the SDK's history: all results of a message's calls in one message."""
    history = Chat()
    for is_result, group in groupby(messages, key=lambda message: message.role == "tool"):
        if is_result:
            history.add_tool_results(map(_tool_result, group))
            continue
        for message in group:
            if message.tool_calls:
                history.add_assistant_response(message.content, map(_call, message.tool_calls))
            else:
                history.add_entry(message.role, message.content)
    return history


def _tool_result(message: Message) -> ToolCallResultDataDict:
    call_id = message.tool_call_id
    return {"type": "toolCallResult", "content": message.content, "toolCallId": call_id}


def _call(call: ToolCall) -> ToolCallRequest:
    return ToolCallRequest(type="function", name=call.name, id=call.id, arguments=call.arguments)


def stop_reason(stream: PredictionStream) -> str:
    """Return why a finished prediction ended, in the server's word."""
    endpoint = stream._endpoint
    return endpoint.stop_reason if isinstance(endpoint, _Newer) else ""


def prefill_rate(stats: LlmPredictionStats) -> float | None:
    """Return the tokens per second of a prefill that nothing was cached of."""
    tokens, seconds = stats.prompt_tokens_count, positive(stats.time_to_first_token_sec)
    if seconds is None or tokens is None or tokens < MEASURABLE_PROMPT_TOKENS:
        return None
    return tokens / seconds


def positive(value: float | None) -> float | None:
    """Return a measured value if it can be one."""
    return value if value is not None and math.isfinite(value) and value > 0 else None


@contextmanager
def cancelling(stream: PredictionStream) -> Iterator[None]:
    """Cancel an abandoned prediction; the SDK itself would let it run on."""
    # An SDK stream that has raised has closed its channel, and can no longer cancel.
    channel = stream._channel
    try:
        yield
    except BaseException as error:
        given_up = isinstance(error, TimeoutError | Failure) or not isinstance(error, Exception)
        if given_up and channel is not None:
            with suppress(Exception):
                channel.cancel()
        raise


def hear_tool_calls(stream: PredictionStream, hear: Callable[[], None]) -> None:
    """Call `hear` for each message of a tool call, which the stream does not pass on."""
    if isinstance(stream._endpoint, _Newer):
        stream._endpoint.hear = hear


def tool_calls(stream: PredictionStream) -> tuple[ToolCall, ...]:
    """Return the tool calls of a prediction, also those that the SDK does not read."""
    endpoint = stream._endpoint
    return tuple(endpoint.tool_calls) if isinstance(endpoint, _Newer) else ()


def namespace_of(identifier: str) -> Literal["llm", "embedding"]:
    """Return where LM Studio has one of our instances."""
    return "embedding" if identifier.rpartition("-")[2].startswith(EMBEDS) else "llm"


def _session(client: Client, identifier: str) -> Any:
    return getattr(client, namespace_of(identifier))


def _specifier(identifier: str) -> dict[str, object]:
    return {"type": "query", "query": {"identifier": identifier}}


def _layer(fields: Fields) -> dict[str, object]:
    values = [{"key": key, "value": value} for key, value in fields.items()]
    return {"layerName": "apiOverride", "config": {"fields": values}}


class _Raw:
    """Adds a layer of settings to what an endpoint sends."""

    _creation_params: Any

    @property
    def creation_params_beside(self) -> dict[str, Any]:
        """What is sent, to be added to."""
        params: dict[str, Any] = self._creation_params
        return params

    def send(self, stack: str, fields: Fields) -> None:
        """Add `fields` to the layers of `stack`; later layers take precedence."""
        before = self._creation_params[stack]["layers"]
        own = [each for each in before if each["config"]["fields"]]
        self._creation_params[stack] = {"layers": [*own, _layer(fields)] if fields else own}


class _Load(_Raw, LoadModelEndpoint[LlmLoadModelConfig, LlmLoadModelConfigDict]):
    def __init__(
        self, key: str, identifier: str, ttl_seconds: int, hear: Callable[[float], None]
    ) -> None:
        super().__init__(
            key,
            identifier,
            ttl_seconds,
            LlmChannelLoadModelCreationParameter,
            LlmLoadModelConfig,
            None,
            hear,
        )


class _Newer(_Raw):
    """Reads the end of a prediction where the server is newer than the SDK's types."""

    stop_reason: str = ""
    hear: Callable[[], None] | None = None
    _PLAIN: ClassVar[Mapping[str, object]] = {
        "modelInfo": {
            "type": "llm",
            "modelKey": "",
            "format": "gguf",
            "displayName": "",
            "path": "",
            "sizeBytes": 0,
            "vision": False,
            "trainedForToolUse": False,
            "maxContextLength": 1,
        },
        "loadModelConfig": {"fields": []},
        "predictionConfig": {"fields": []},
    }
    """Unused parts of the last message, in a form that every SDK accepts."""

    @property
    def tool_calls(self) -> list[ToolCall]:
        calls: list[ToolCall] = self.__dict__.setdefault("_found_calls", [])
        return calls

    def iter_message_events(self, contents: Any) -> Iterable[Any]:
        kind = contents.get("type") if isinstance(contents, dict) else None
        if isinstance(kind, str) and kind.startswith("toolCallGeneration") and self.hear:
            self.hear()
        if kind in ("toolCallGenerationEnd", "toolCallGenerationFailed"):
            self.tool_calls.append(_tool_call(contents))
            return ()
        if isinstance(kind, str) and kind.startswith("toolCallGeneration"):
            return ()
        if isinstance(contents, dict) and contents.get("type") == "success":
            contents = {**contents, **self._PLAIN, "stats": self._stats(contents.get("stats"))}
        events: Iterable[Any] = super().iter_message_events(contents)  # type: ignore[misc]
        return events

    def _stats(self, stats: Any) -> Any:
        if not isinstance(stats, dict) or not isinstance(stats.get("stopReason"), str):
            return stats
        self.stop_reason = stats["stopReason"]
        known = self.stop_reason in STOP_REASONS
        return stats if known else {**stats, "stopReason": "failed"}


def _tool_call(contents: Mapping[str, Any]) -> ToolCall:
    """Return the call of a message; of a call that could not be read, the model's text."""
    request = contents.get("toolCallRequest")
    if not isinstance(request, dict):
        return ToolCall(name="", arguments=str(contents.get("rawContent") or ""))
    name, arguments = request.get("name"), request.get("arguments")
    return ToolCall(name=str(name or ""), arguments=arguments, id=str(request.get("id") or ""))


class _Completion(_Newer, CompletionEndpoint):
    pass


class _Response(_Newer, ChatResponseEndpoint):
    pass
