"""The channels that load: `loadModel` and `getOrLoad`."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmstudio._sdk_models import ModelQuery, ModelSpecifierQuery
from msgspec import UNSET

from tests.standin.lmstudio import errors, versions
from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.models.embedded import load_mind
from tests.standin.lmstudio.models.minds import StandInMind
from tests.standin.lmstudio.models.model import StandInModel
from tests.standin.lmstudio.protocol import wire

if TYPE_CHECKING:
    from tests.standin.lmstudio.protocol.connection import Channel, Note


async def load(channel: Channel, parameter: Any, note: Note) -> None:
    """Load as requested. The load continues if the connection is lost, as in LM Studio.

    Raises:
        Refused: The load fails.
    """
    server, domain = channel.server, channel.connection.namespace
    just_in_time = not hasattr(parameter, "model_key")
    key = parameter.identifier if just_in_time else parameter.model_key
    ttl_ms = parameter.load_ttl_ms if just_in_time else parameter.ttl_ms
    config = wire.settings(parameter.load_config_stack)
    asked = config.get(f"{domain}.load.contextLength")
    note.add(
        identifier=parameter.identifier,
        model_key=key,
        ttl_ms=ttl_ms,
        context_length=asked,
        config=config,
        device=_device(parameter),
    )
    await server.meet("load", connection=channel.connection, model=key)
    if just_in_time:
        query = ModelSpecifierQuery(query=ModelQuery(identifier=key))
        try:
            instance = server.machine.find(query, domain)
        except Refused:
            pass
        else:
            instance.last_used = server.clock()
            await channel.send({"type": "alreadyLoaded", "info": instance.info()})
            return
    model = server.machine.downloaded(key, domain)
    context_length = asked or min(_default(server.home, model, domain), model.max_context_length)
    settings = versions.in_force(config, server.version, mlx=model.format != "gguf")
    if versions.fits_by_itself(settings):
        context_length = server.machine.fitting(model, context_length)
    identifier = server.machine.reserve(
        model, None if just_in_time else parameter.identifier, context_length
    )
    note.add(identifier=identifier)
    try:
        if just_in_time:
            start = {"type": "startLoading", "identifier": identifier, "info": model.info()}
            await channel.send(start)
        else:
            await channel.send({"type": "resolved", "info": model.info()})
        await _progress(channel, model, "loadProgress" if just_in_time else "progress")
        mind = await load_mind(model, context_length)
        for behaviour in model.behaviours:
            settings = behaviour.settings(settings)
        if isinstance(mind, StandInMind):
            mind.slots = versions.slots(settings, model.behaviours)
        instance = server.machine.add(model, identifier, mind, ttl_ms=ttl_ms, config=settings)
    finally:
        server.machine.release(identifier)
    note.add(granted_context_length=mind.context_length)
    success = "loadSuccess" if just_in_time else "success"
    await channel.send({"type": success, "info": instance.info()})


def _device(parameter: Any) -> str:
    named = getattr(parameter, "device_identifier", UNSET)
    return "" if named is UNSET else named or "this"


async def _progress(channel: Channel, model: StandInModel, kind: str) -> None:
    for step in range(1, model.load_steps + 1):
        fraction = step / model.load_steps
        fault = await channel.server.meet(
            "load_progress", connection=channel.connection, model=model.key, progress=fraction
        )
        if channel.cancelled:
            raise Refused(errors.canceled())
        await channel.send({"type": kind, "progress": fraction})
        repeated = [fraction / 2, fraction] if fault and fault.back else [fraction]
        await channel.repeat(fault, *({"type": kind, "progress": each} for each in repeated))
        # Lets other connections run, as a load that takes time would.
        await asyncio.sleep(0)


def _default(home: Path | None, model: StandInModel, domain: str) -> int:
    """The context of a load without one: the user's own for the model, if there is a file of it."""
    if home is not None:
        folder = home / ".internal" / "user-concrete-model-default-config"
        with suppress(OSError):
            fields = json.loads((folder / f"{model.file_path}.json").read_bytes())["load"]["fields"]
            for field in fields:
                if field["key"] == f"{domain}.load.contextLength":
                    return int(field["value"])
    return model.default_context_length
