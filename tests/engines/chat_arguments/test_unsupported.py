"""Arguments that an engine or a model cannot serve."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest

from pytest_lmstrix.engines.request import Unable
from tests.engines.chat_arguments.engines import (
    NO_LLAMACPP,
    PNG,
    SCHEMA,
    WEATHER,
    get_weather,
    llamacpp,
    lmstudio,
    loaded_in,
    ollama,
    openai,
)
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio import StandInModel
from tests.standin.openai import Faults


@pytest.mark.parametrize("start", [lmstudio, ollama], ids=lambda start: start.__name__)
def test_images_for_a_blind_model_are_more_than_it_can(start: Any) -> None:
    model = StandInModel(key="tiny", trained_for_tool_use=True)
    with ExitStack() as cleanup:
        loaded = start(cleanup, model)
        with pytest.raises(Unable, match="this model cannot see images"):
            loaded.chat("What do you see?", max_tokens=20, images=[PNG])
        assert not loaded.failed


@NO_LLAMACPP
def test_llamacpp_cannot_see_images_and_calls_tools() -> None:
    with ExitStack() as cleanup:
        loaded = llamacpp(cleanup)
        with pytest.raises(Unable, match="images need the projector"):
            loaded.chat("What do you see?", max_tokens=20, images=[PNG])
        reply = loaded.chat("Weather in Paris?", max_tokens=60, tools=[get_weather])
        assert all(call.fault or call.name == "get_weather" for call in reply.tool_calls)


def test_what_a_server_refuses_is_more_than_it_can() -> None:
    with ExitStack() as cleanup:
        faults = Faults(refuses=("tools", "response_format"), refuses_images=True)
        loaded = openai(cleanup, faults=faults)
        with pytest.raises(Unable, match="tools is not supported"):
            loaded.chat("Use it", max_tokens=20, tools=[get_weather])
        with pytest.raises(Unable, match="image_url is not supported"):
            loaded.chat("Look", max_tokens=20, images=[PNG])
        reply = loaded.chat("Say hello", max_tokens=20, schema=SCHEMA)
        assert not reply.enforced
        assert reply.schema_error
        with pytest.raises(AssertionError, match=r"the schema is not kept: .*\nHello!"):
            _ = reply.parsed
        with pytest.raises(RuntimeError, match=r"required by the test: .*response_format"):
            loaded.chat("Say hello", max_tokens=20, schema=SCHEMA, required=True)
        assert not loaded.failed


def test_an_engine_with_the_old_signature_does_what_it_can() -> None:
    with ExitStack() as cleanup:
        loaded = loaded_in(FakeEngine(), cleanup)
        assert loaded.chat("2+3=", max_tokens=4, fill=0.5).text == "5"
        unenforced = loaded.chat("2+3=", max_tokens=4, schema={"type": "integer"})
        assert (unenforced.parsed, unenforced.enforced) == (5, False)
        with pytest.raises(Unable, match="engine 'fake' takes no tools in chat"):
            loaded.chat("2+3=", max_tokens=4, tools=[get_weather])
        with pytest.raises(Unable, match="engine 'fake' takes no tools in chat"):
            loaded.chat(WEATHER, max_tokens=4)
        with pytest.raises(Unable, match="engine 'fake' takes no seed in chat"):
            loaded.chat("2+3=", max_tokens=4, seed=1)
        with pytest.raises(Unable, match="engine 'fake' takes no stop in complete"):
            loaded.complete("2+3=", max_tokens=4, stop="5")
        assert json.loads(loaded.complete("2+3=", max_tokens=4).text) == 5
