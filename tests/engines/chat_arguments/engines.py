"""Load a model in each engine, and arguments of requests."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from importlib.util import find_spec
from typing import Any

import pytest

from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Engine
from tests.engines.silence import Silent
from tests.standin import weights
from tests.standin.lmstudio import LmStudioServer, StandInModel
from tests.standin.ollama import OllamaServer
from tests.standin.openai import Dialect, Faults, OpenAiServer

CONTEXT = 2048
TINY = StandInModel(key="tiny", vision=True, trained_for_tool_use=True)
PNG = b"\x89PNG\r\n\x1a\n" + b"not looked at by stand-ins"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "number": {"type": "integer"}},
    "required": ["city", "number"],
    "additionalProperties": False,
}

WEATHER: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [{"name": "a", "arguments": {}}]},
    {"role": "tool", "content": "sun"},
]


def get_weather(city: str, days: int = 1) -> str:
    """Return the weather."""
    return f"{city} {days}"


def loaded_in(engine: Engine, cleanup: ExitStack, **model: Any) -> LoadedModel:
    loader = ModelLoader(
        lambda model, gone: engine, host_lock=lambda *_: nullcontext(), watch=Silent()
    )
    cleanup.callback(loader.unload)
    named = Model(**{"id": "tiny", "engine": engine.name, **model})
    return loader.load(named, CONTEXT)


def lmstudio(cleanup: ExitStack, model: StandInModel = TINY) -> LoadedModel:
    from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine

    server = cleanup.enter_context(LmStudioServer([model]))
    cleanup.callback(lambda: server.violations == [] or pytest.fail(str(server.violations)))
    engine = LmStudioEngine(server.host, load_timeout=60, reply_timeout=60)
    cleanup.callback(engine.close)
    return loaded_in(engine, cleanup)


def ollama(cleanup: ExitStack, model: StandInModel = TINY) -> LoadedModel:
    from pytest_lmstrix.engines.ollama.engine import OllamaEngine

    server = cleanup.enter_context(OllamaServer([model]))
    engine = OllamaEngine(server.host, load_timeout=60, reply_timeout=60)
    cleanup.callback(engine.close)
    return loaded_in(engine, cleanup)


def openai(
    cleanup: ExitStack, model: StandInModel = TINY, faults: Faults | None = None
) -> LoadedModel:
    from pytest_lmstrix.engines.openai.engine import OpenAiEngine

    server = cleanup.enter_context(OpenAiServer(model, CONTEXT, Dialect.VLLM, faults))
    engine = OpenAiEngine(server.host, reply_timeout=60)
    cleanup.callback(engine.close)
    return loaded_in(engine, cleanup)


def llamacpp(cleanup: ExitStack) -> LoadedModel:
    from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine

    try:
        path = str(weights.smollm2())
    except Failure as failure:
        if failure.verdict is not Verdict.UNREACHABLE:
            raise
        pytest.skip(f"no model at hand: {failure.text}")
    engine = LlamaCppEngine(load_timeout=120, reply_timeout=120)
    cleanup.callback(engine.close)
    return loaded_in(engine, cleanup, source=path)


NO_LLAMACPP = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs xllamacpp")
STAND_INS = (lmstudio, ollama, openai)
