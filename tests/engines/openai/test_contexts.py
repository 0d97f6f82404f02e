"""Listings and contexts in force, as servers were seen to report them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.openai.engine import OpenAiEngine
from pytest_lmstrix.engines.openai.instance import OpenAiInstance
from tests.engines.openai.test_streams import SAID, STOP, Ignored, events
from tests.standin.openai.canned import Canned, CannedServer

NAMED = {"object": "list", "data": [{"id": "tiny", "object": "model", "owned_by": "library"}]}
ASKED = 30_000
NOT_REPORTED = ("context: the server does not report how much it has",)
PROPS = "/props?model=tiny&autoload=false"


def json(content: Any) -> Canned:
    return Canned(body=msgspec.json.encode(content))


def load(server: CannedServer, name: str = "tiny") -> OpenAiInstance:
    engine = OpenAiEngine(server.host, reply_timeout=5.0)
    try:
        return engine.load(Model(id=name, engine="openai"), ASKED, Ignored())
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        pytest.param(PROPS, {"default_generation_settings": {"n_ctx": 4096}}, id="llamafile"),
        pytest.param(
            "/api/v0/models",
            {"data": [{"id": "tiny", "state": "loaded", "loaded_context_length": 4096}]},
            id="lmstudio",
        ),
        pytest.param(
            "/api/ps",
            {"models": [{"name": "tiny:latest", "model": "tiny", "context_length": 4096}]},
            id="ollama",
        ),
        pytest.param(
            "/v1/model", {"id": "tiny", "parameters": {"max_seq_len": 4096}}, id="tabbyapi"
        ),
        pytest.param("/api/extra/true_max_context_length", {"value": 4096}, id="koboldcpp"),
        pytest.param(
            "/v1/health",
            {"all_models_loaded": [{"model_name": "tiny", "recipe_options": {"ctx_size": 4096}}]},
            id="lemonade",
        ),
        pytest.param("/info", {"model_id": "x", "max_total_tokens": 4096}, id="tgi"),
    ],
)
def test_the_context_is_read_where_the_server_reports_it(path: str, answer: Any) -> None:
    with CannedServer({"/v1/models": json(NAMED), path: json(answer)}) as server:
        instance = load(server)
    assert instance.context_length == 4096
    assert instance.notes == ()


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        pytest.param(
            "/api/v0/models",
            {"data": [{"id": "tiny", "state": "not-loaded"}]},
            {"data": [{"id": "tiny", "state": "loaded", "loaded_context_length": 4096}]},
            id="lmstudio",
        ),
        pytest.param(
            "/api/ps",
            {"models": []},
            {"models": [{"name": "tiny", "context_length": 4096}]},
            id="ollama",
        ),
        pytest.param(
            PROPS,
            {"error": {"code": 400, "message": "model is not loaded"}},
            {"default_generation_settings": {"n_ctx": 4096}},
            id="router",
        ),
    ],
)
def test_a_model_that_the_first_request_loads_is_loaded_first(
    path: str, before: Any, after: Any
) -> None:
    def now() -> Iterator[bytes]:
        yield msgspec.json.encode(after if "/v1/completions" in server.paths else before)

    answers = {
        "/v1/models": json(NAMED),
        path: Canned(body=now),
        "/props": json({"role": "router"}) if path == PROPS else Canned(status=404),
        "/v1/completions": Canned(body=events(SAID, STOP)),
    }
    with CannedServer(answers) as server:
        instance = load(server)
    assert (instance.context_length, instance.notes) == (4096, ())
    assert server.paths.count("/v1/completions") == 1


@pytest.mark.parametrize("listed", [True, False])
def test_a_model_that_was_never_listed_is_missing_and_not_crashed(listed: bool) -> None:
    refusal = b'{"error":{"message":"The model `tiny` does not exist.","code":"NotFoundError"}}'
    answers = {"/v1/completions": Canned(status=404, body=refusal)}
    with CannedServer(answers | ({"/v1/models": json(NAMED)} if listed else {})) as server:
        engine = OpenAiEngine(server.host)
        instance = engine.load(Model(id="tiny", engine="openai"), ASKED, Ignored())
        with pytest.raises(Failure, match="does not exist") as failed:
            instance.complete("2 + 3 =", max_tokens=4)
        engine.close()
    assert failed.value.verdict is (Verdict.CRASHED if listed else Verdict.MODEL_NOT_FOUND)


def test_what_a_slot_has_is_what_is_granted() -> None:
    listing = {"data": [{"id": "tiny", "meta": {"n_ctx": 16_384, "n_ctx_train": 32_768}}]}
    props = json({"default_generation_settings": {"n_ctx": 4096}, "total_slots": 4})
    with CannedServer({"/v1/models": json(listing), "/props": props}) as server:
        instance = load(server)
    assert instance.context_length == 4096
    assert instance.notes == (
        "slots: a request gets 4,096 of the 16,384 tokens that the server has",
    )


def test_what_another_model_has_is_not_reported_of_this_one() -> None:
    other = json({"id": "other", "parameters": {"max_seq_len": 4096}})
    unexpected = json({"error": "Unexpected endpoint or method. (GET /props)"})
    with CannedServer({"/v1/models": json(NAMED), "/v1/model": other}) as server:
        server.missing = unexpected  # LM Studio: with status 200
        instance = load(server)
    assert (instance.context_length, instance.notes) == (ASKED, NOT_REPORTED)


@pytest.mark.parametrize(
    ("listing", "name", "served"),
    [
        ({"models": [{"name": "tiny:latest", "model": "tiny:latest"}]}, "tiny", "tiny:latest"),
        ({"data": [{"id": "tiny:latest"}]}, "tiny", "tiny:latest"),
        ({"data": [{"id": "tiny"}]}, "tiny:latest", "tiny"),
        ({"models": [{"key": "tiny", "type": "llm"}]}, "tiny", "tiny"),
        ({"models": [{"name": "a"}], "data": [{"id": "tiny"}]}, "tiny", "tiny"),
        ({"data": [{"id": "/m/tiny.gguf", "aliases": ["tiny"]}]}, "tiny", "/m/tiny.gguf"),
        ({"data": [{"object": "model"}, 7, {"id": "tiny", "meta": "?"}]}, "tiny", "tiny"),
    ],
)
def test_models_are_found_in_every_shape_of_a_listing(listing: Any, name: str, served: str) -> None:
    with CannedServer({"/v1/models": json(listing)}) as server:
        assert load(server, name)._served.name == served


@pytest.mark.parametrize("listing", [{"data": None}, {"object": "list", "data": []}])
def test_an_empty_listing_has_no_model(listing: Any) -> None:
    with (
        CannedServer({"/v1/models": json(listing)}) as server,
        pytest.raises(Failure, match="it has no model") as failed,
    ):
        load(server)
    assert failed.value.verdict is Verdict.MODEL_NOT_FOUND


@pytest.mark.parametrize("answer", [{}, {"data": "x"}, [1], {"status": "ok"}])
def test_what_is_no_listing_is_no_such_server(answer: Any) -> None:
    with (
        CannedServer({"/v1/models": json(answer)}) as server,
        pytest.raises(Failure, match="does not answer as OpenAI's interface does") as failed,
    ):
        load(server)
    assert failed.value.verdict is Verdict.UNREACHABLE


@pytest.mark.parametrize(
    "field", ["context_length", "context_window", "max_context_length", "max_context_window"]
)
def test_what_a_model_could_have_is_not_what_it_has(field: str) -> None:
    listing = json({"data": [{"id": "tiny", field: 131_072}]})
    with CannedServer({"/v1/models": listing}) as server:
        engine = OpenAiEngine(server.host)
        facts = engine.facts(Model(id="tiny", engine="openai"))
        assert load(server).notes == NOT_REPORTED
        engine.close()
    assert facts is not None
    assert facts.context_limit == 131_072
