"""The remote procedure calls, one function each."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from typing import TYPE_CHECKING, Any, cast

from lmstudio._sdk_models import ModelQuery, ModelSpecifierQuery

from tests.standin.lmstudio import errors
from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.faults import Where
from tests.standin.lmstudio.machine import Instance, Specifier
from tests.standin.lmstudio.models.minds import embed, render
from tests.standin.lmstudio.protocol import wire
from tests.standin.lmstudio.protocol.predicting import messages

if TYPE_CHECKING:
    from tests.standin.lmstudio.protocol.connection import Connection, Note
    from tests.standin.lmstudio.server import LmStudioServer


async def answer(connection: Connection, endpoint: str, parameter: Any, note: Note) -> Any:
    """Return the result of an RPC; `None` is void.

    Raises:
        Refused: The answer is an error.
    """
    server, domain = connection.server, connection.namespace
    specifier = _specifier(parameter)
    if isinstance(specifier, ModelSpecifierQuery):
        note.add(identifier=specifier.query.identifier)
    fault = await server.meet(cast(Where, endpoint), connection=connection)
    match endpoint:
        case "version":
            return {"version": server.version, "build": 1}
        case "uploadFileBase64":
            size = len(b64decode(parameter.content_base64, validate=True))
            return {"identifier": parameter.name, "fileType": "image", "sizeBytes": size}
        case "listDownloadedModels":
            return [model.info() for model in server.machine.listed]
        case "listDownloadedModelVariants":
            return [v.info() for v in server.machine.models[parameter.model_key].variants]
        case "listLoaded":
            return [i.info() for i in server.machine.instances.values() if i.model.type == domain]
        case "estimateModelUsage":
            return _estimate(server, domain, parameter)
    assert specifier is not None, f"unreachable: {endpoint} is about an instance"
    try:
        instance = server.machine.find(specifier, domain)
    except Refused:
        if endpoint == "getModelInfo" and not parameter.throw_if_not_found:
            return None
        raise
    note.add(identifier=instance.identifier, model_key=instance.model.key)
    instance.last_used = server.clock()
    match endpoint:
        case "unloadModel":
            if parameter.device_identifier != instance.model.device:
                raise Refused(errors.no_matching_model({"identifier": instance.identifier}, []))
            if fault is None or fault.kind != "ignore":
                server.machine.remove(instance, "unload")
            return None
        case "getModelInfo":
            return instance.info()
        case "getLoadConfig":
            context = {f"{domain}.load.contextLength": instance.mind.context_length}
            return wire.fields(instance.config | context)
        case "tokenize":
            return {"tokens": list(await _tokens(instance, parameter.input_string))}
        case "countTokens":
            return {"tokenCount": len(await _tokens(instance, parameter.input_string))}
        case "embedString":
            room = instance.mind.context_length
            return {"embedding": embed(instance.model, parameter.input_string, room)[0]}
        case "applyPromptTemplate":
            return {"formatted": render(messages(parameter.history))}
    raise AssertionError(f"unreachable: {endpoint} is in wire.RPCS")


def _specifier(parameter: Any) -> Specifier | None:
    """Return the instance that a call names, if any."""
    if hasattr(parameter, "identifier"):
        return ModelSpecifierQuery(query=ModelQuery(identifier=parameter.identifier))
    return getattr(parameter, "specifier", getattr(parameter, "model_specifier", None))


async def _tokens(instance: Instance, text: str) -> Any:
    if instance.mind.blocks:
        return await asyncio.to_thread(instance.mind.tokenize, text)
    return instance.mind.tokenize(text)


def _estimate(server: LmStudioServer, domain: str, parameter: Any) -> dict[str, Any]:
    model = server.machine.downloaded(parameter.model_key, domain)
    asked = wire.settings(parameter.load_config_stack).get(
        f"{domain}.load.contextLength", model.default_context_length
    )
    context_bytes = model.bytes_per_token * asked
    return {
        "memory": {
            "confidence": "high",
            "modelVramBytes": 0,
            "contextVramBytes": 0,
            "totalVramBytes": 0,
            "modelBytes": model.size_bytes,
            "contextBytes": context_bytes,
            "totalBytes": model.size_bytes + context_bytes,
        },
        "passesGuardrails": server.machine.fits(model.size_bytes + context_bytes),
    }
