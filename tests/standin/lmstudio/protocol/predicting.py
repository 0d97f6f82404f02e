"""The channel that predicts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmstudio._sdk_models import (
    ChatHistoryData,
    FileHandle,
    PredictionChannelRequest,
    TextData,
    ToolCallRequestData,
    ToolCallResultData,
)

from tests.standin.lmstudio import errors, versions
from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.machine import Instance
from tests.standin.lmstudio.models.asked import Asked, Called
from tests.standin.lmstudio.models.minds import Message, Prediction, Request
from tests.standin.lmstudio.models.model import StandInModel
from tests.standin.lmstudio.protocol import wire

if TYPE_CHECKING:
    from tests.standin.lmstudio.protocol.connection import Channel, Note


async def predict(channel: Channel, parameter: PredictionChannelRequest, note: Note) -> None:
    """Predict as requested; ends with the connection or the instance.

    Raises:
        Refused: The prediction fails.
    """
    server = channel.server
    config = wire.settings(parameter.prediction_config_stack)
    query = getattr(parameter.model_specifier, "query", None)
    note.add(identifier=query.identifier if query else None, config=config)
    instance = server.machine.find(parameter.model_specifier, "llm")
    note.add(identifier=instance.identifier, model_key=instance.model.key)
    task = asyncio.ensure_future(_predict(channel, instance, parameter, config, note))
    instance.running.add(task)
    channel.ends_with_connection(task)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled() or channel.lost:
            raise
        raise Refused(errors.unloaded_while_predicting()) from None
    except Refused as refused:
        if refused.fatal:
            instance.running.discard(task)
            server.machine.remove(instance, "crash")
        raise
    finally:
        task.cancel()
        instance.running.discard(task)
        instance.last_used = server.clock()


def messages(history: ChatHistoryData) -> tuple[Message, ...]:
    """Return the messages of a history, text only; a result of a tool names its call."""
    found: list[Message] = []
    calls: dict[str | None, Called] = {}
    for message in history.messages:
        role, texts = type(message).role, []
        for part in message.content:
            if isinstance(part, TextData):
                texts.append(part.text)
            elif isinstance(part, ToolCallRequestData):
                made = part.tool_call_request
                calls[made.id] = Called(made.name, json.dumps(made.arguments))
            elif isinstance(part, ToolCallResultData):
                found.append(
                    Message(role=role, text=part.content, called=calls.pop(part.tool_call_id))
                )
        if role != "tool":
            found.append(Message(role=role, text="".join(texts)))
    assert not calls, f"no results of {list(calls)}"
    return tuple(found)


async def _predict(
    channel: Channel,
    instance: Instance,
    parameter: PredictionChannelRequest,
    config: dict[str, Any],
    note: Note,
) -> None:
    server, model = channel.server, instance.model
    async with instance.turn:
        await server.meet("predict", connection=channel.connection, model=model.key)
        server.machine.attempts[model.key, "predict"] += 1
        known = {key: v for key, v in config.items() if versions.is_known(key, server.version)}
        request = _request(parameter, known, server.machine.attempts[model.key, "predict"])
        note.add(prompt_tail="".join(m.text for m in request.messages)[-200:])
        if instance.mind.blocks:
            prediction = await asyncio.to_thread(instance.mind.predict, request)
        else:
            prediction = instance.mind.predict(request)
        note.add(prompt_tokens=prediction.sent_tokens, cached_tokens=prediction.cached_tokens)
        await _prefill(channel, instance, prediction)
        sent = await _fragments(channel, instance, prediction)
        await _call_tools(channel, prediction.calls)
        stopped = channel.cancelled
        await channel.send(
            {
                "type": "success",
                "stats": _stats(model, prediction, sent, stopped=stopped),
                "modelInfo": instance.info(),
                "loadModelConfig": wire.fields(instance.config),
                "predictionConfig": wire.fields(config),
            }
        )


def _request(parameter: PredictionChannelRequest, config: dict[str, Any], attempt: int) -> Request:
    limit = config.get("llm.prediction.maxPredictedTokens") or {}
    budget = config.get("llm.prediction.reasoning.budgetTokens") or {}
    return Request(
        messages=messages(parameter.history),
        chat="llm.prediction.promptTemplate" not in config,
        max_tokens=limit.get("value") if limit.get("checked") else None,
        temperature=config.get("llm.prediction.temperature", 0.8),
        overflow_policy=config.get("llm.prediction.contextOverflowPolicy", "truncateMiddle"),
        stop_strings=tuple(config.get("llm.prediction.stopStrings") or ()),
        attempt=attempt,
        thinking=config.get("llm.prediction.reasoning.enableThinking", True),
        thinking_budget=budget.get("value") if budget.get("checked") else None,
        asked=_asked(parameter, config),
    )


def _asked(parameter: PredictionChannelRequest, config: dict[str, Any]) -> Asked:
    seed = config.get("llm.prediction.seed") or {}
    parts = [part for message in parameter.history.messages for part in message.content]
    return Asked(
        seed=seed.get("value") if seed.get("checked") else None,
        schema=(config.get("llm.prediction.structured") or {}).get("jsonSchema"),
        tools=tuple((config.get("llm.prediction.tools") or {}).get("tools") or ()),
        images=sum(isinstance(part, FileHandle) for part in parts),
    )


async def _call_tools(channel: Channel, calls: Sequence[Called]) -> None:
    """Send the calls; one that cannot be read as JSON is reported with its text."""
    for number, call in enumerate(calls):
        await channel.send({"type": "toolCallGenerationStart", "toolCallId": str(number)})
        arguments = call.parsed()
        if arguments == call.arguments:
            error = {"title": "Failed to parse tool call"}
            failed = {"type": "toolCallGenerationFailed", "error": error}
            await channel.send({**failed, "rawContent": call.arguments})
            continue
        request = {"type": "function", "id": f"{number}", "name": call.name}
        ended = {"type": "toolCallGenerationEnd"}
        await channel.send({**ended, "toolCallRequest": {**request, "arguments": arguments}})


async def _prefill(channel: Channel, instance: Instance, prediction: Prediction) -> None:
    steps = instance.model.prefill_steps
    for step in range(1, steps + 1):
        progress = step / steps
        fault = await channel.server.meet(
            "prefill",
            connection=channel.connection,
            model=instance.model.key,
            progress=progress,
        )
        if channel.cancelled:
            return
        details = {
            "cachedTokenCount": prediction.cached_tokens,
            "totalPromptTokenCount": prediction.prompt_tokens,
        }
        message = {"type": "promptProcessingProgress", "progress": progress, "details": details}
        await channel.send(message)
        await channel.repeat(fault, message)


async def _fragments(channel: Channel, instance: Instance, prediction: Prediction) -> int:
    """Send the reply, and return the number of fragments sent before a cancel."""
    for count, (text, reasoning_type) in enumerate(prediction.pieces):
        fault = await channel.server.meet(
            "fragment",
            connection=channel.connection,
            model=instance.model.key,
            progress=count,
        )
        if channel.cancelled:
            return count
        fragment = {
            "content": text,
            "tokensCount": 1,
            "containsDrafted": False,
            "reasoningType": reasoning_type,
            "isStructural": reasoning_type in ("reasoningStartTag", "reasoningEndTag"),
        }
        await channel.send({"type": "fragment", "fragment": fragment})
        await channel.repeat(fault, {"type": "fragment", "fragment": fragment})
    return len(prediction.pieces)


def _stats(
    model: StandInModel, prediction: Prediction, sent: int, *, stopped: bool
) -> dict[str, Any]:
    stop_reason = "userStopped" if stopped else prediction.stop_reason
    if not model.reports_stats:
        return {"stopReason": stop_reason} | model.stats
    predicted = sent if stopped else prediction.predicted_tokens
    prompt = prediction.prompt_tokens
    return {
        "stopReason": stop_reason,
        "tokensPerSecond": prediction.tokens_per_second,
        "numGpuLayers": -1,
        "timeToFirstTokenSec": prediction.ttft_seconds,
        "totalTimeSec": prediction.ttft_seconds + predicted / prediction.tokens_per_second,
        "promptTokensCount": prompt,
        "predictedTokensCount": predicted,
        "totalTokensCount": (prompt or 0) + predicted,
    } | model.stats
