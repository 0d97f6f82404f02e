"""The stand-in works with the unmodified SDK, and logs every call."""

from __future__ import annotations

import httpx
import lmstudio
import pytest
from lmstudio.schemas import LMStudioStruct

from tests.standin.lmstudio import (
    Fault,
    LmStudioServer,
    MissingFromDisk,
    Reasons,
    Says,
    StandInModel,
    UserInstance,
)
from tests.standin.lmstudio.models import hostile
from tests.standin.lmstudio.tests.conftest import Connect

TINY = StandInModel(key="tiny", max_context_length=8192)
EMBEDDING = StandInModel(key="embed", type="embedding")
COMPLETION: lmstudio.LlmPredictionConfigDict = {
    "maxTokens": 12,
    "temperature": 0.0,
    "contextOverflowPolicy": "stopAtLimit",
}


def details(error: lmstudio.LMStudioServerError) -> dict[str, object]:
    assert error.server_error is not None
    data = error.server_error.display_data
    assert isinstance(data, dict)
    return data


def test_http_greeting_and_answers_to_other_paths() -> None:
    with LmStudioServer() as server:
        assert lmstudio.Client.is_valid_api_host(server.host)
        other = httpx.get(f"http://{server.host}/v1/models", trust_env=False)
    assert other.json() == {"error": "Unexpected endpoint or method. (GET /v1/models)"}


def test_listing(connect: Connect) -> None:
    broken = StandInModel(key="broken", listing={"format": "unheard-of", "sizeBytes": None})
    with LmStudioServer([TINY, EMBEDDING]) as server:
        client = connect(server.host)
        assert [m.model_key for m in client.list_downloaded_models()] == ["tiny", "embed"]
        assert [m.model_key for m in client.llm.list_downloaded()] == ["tiny"]
        raw_entry = client.system.remote_call("listDownloadedModels")[0]
        assert raw_entry["quantization"] == {"name": "Q4_K_M", "bits": 4}
        assert server.violations == []
    with LmStudioServer([broken]) as server:
        entry = connect(server.host).system.remote_call("listDownloadedModels")[0]
        assert entry["format"] == "unheard-of"
        assert "sizeBytes" not in entry


def test_load_use_unload(connect: Connect) -> None:
    with LmStudioServer([TINY]) as server:
        client = connect(server.host)
        progress: list[float] = []
        llm = client.llm.load_new_instance(
            "tiny",
            "mine",
            ttl=7,
            config={"contextLength": 3000},
            on_load_progress=progress.append,
        )
        assert progress == [0.25, 0.5, 0.75, 1.0]
        assert llm.get_context_length() == 3000
        assert llm.count_tokens("Hello, my world") == 4 == len(llm.tokenize("Hello, my world"))
        assert llm.apply_prompt_template({"messages": []}).endswith("<|assistant|>\n")
        reply = llm.complete("1 + 1 = 2\n2 + 3 =", config=COMPLETION)
        assert (reply.content, reply.stats.stop_reason) == ("5", "eosFound")
        assert reply.stats.prompt_tokens_count == 11
        assert llm.respond("Say hello").content == "Hello!"
        assert server.loaded() == ("mine",)
        llm.unload()
        assert server.loaded() == ()
        assert server.violations == []
        (load,) = server.loads()
        assert (load.ttl_ms, load.context_length, load.outcome) == (7000, 3000, "ok")
        assert [c.identifier for c in server.unloads()] == ["mine"]
        assert [c.prompt_tail for c in server.predictions()] == ["1 + 1 = 2\n2 + 3 =", "Say hello"]
        assert [(c.loaded, c.why) for c in server.changes] == [(True, "load"), (False, "unload")]


def test_identifiers_and_default_context(connect: Connect) -> None:
    with LmStudioServer([TINY]) as server:
        llm = connect(server.host).llm
        first, second = llm.load_new_instance("tiny"), llm.load_new_instance("tiny")
        assert (first.identifier, second.identifier) == ("tiny", "tiny:2")
        assert first.get_context_length() == 4096
        with pytest.raises(lmstudio.LMStudioServerError, match="already exists"):
            llm.load_new_instance("tiny", "tiny:2")
        assert server.max_loaded_at_once("tiny") == 2
        assert server.max_loaded_at_once("tiny:") == 1


def test_get_or_load_reuses_a_loaded_instance(connect: Connect) -> None:
    with LmStudioServer([TINY]) as server:
        llm = connect(server.host).llm
        assert llm.model("tiny", config={"contextLength": 2048}).get_context_length() == 2048
        assert llm.model("tiny", config={"contextLength": 4096}).get_context_length() == 2048
        assert server.violations == []


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("nowhere", "generic.pathNotFound"),
        ("lost", "generic.pathNotFound"),
        ("embed", "generic.domainMismatch"),
    ],
)
def test_loading_a_missing_model_is_refused(connect: Connect, key: str, code: str) -> None:
    lost = StandInModel(key="lost", behaviours=(MissingFromDisk(),))
    with (
        LmStudioServer([TINY, EMBEDDING, lost]) as server,
        pytest.raises(lmstudio.LMStudioServerError) as error,
    ):
        connect(server.host).llm.load_new_instance(key)
    assert details(error.value)["code"] == code


def test_using_or_unloading_a_missing_instance_is_refused(connect: Connect) -> None:
    with LmStudioServer([TINY]) as server:
        llm = connect(server.host).llm
        with pytest.raises(lmstudio.LMStudioModelNotFoundError):
            llm.unload("mine")
        with pytest.raises(lmstudio.LMStudioModelNotFoundError):
            lmstudio.LLM("mine", llm).complete("2+3=")


def test_unloading_by_key_unloads_the_users_instance(connect: Connect) -> None:
    with LmStudioServer([TINY], loaded=[UserInstance(key="tiny", identifier="chat")]) as server:
        connect(server.host).llm.unload("tiny")
        assert server.loaded() == ()


def test_time_to_live_counts_idle_time(connect: Connect) -> None:
    now = [0.0]
    with LmStudioServer([TINY], loaded=[UserInstance(key="tiny")], clock=lambda: now[0]) as server:
        llm = connect(server.host).llm.load_new_instance("tiny", "mine", ttl=10)
        now[0] = 9.0
        assert llm.complete("2+3=", config=COMPLETION).content == "5"
        now[0] = 18.0
        assert server.loaded() == ("tiny", "mine")
        now[0] = 20.0
        assert server.loaded() == ("tiny",)
        with pytest.raises(lmstudio.LMStudioModelNotFoundError):
            llm.complete("2+3=")
        assert server.changes[-1].why == "ttl"


@pytest.mark.parametrize(
    ("guardrail", "text"),
    [(True, "insufficient system resources"), (False, "unable to allocate")],
)
def test_all_instances_share_the_memory(connect: Connect, guardrail: bool, text: str) -> None:
    model = StandInModel(key="m", size_bytes=1000, bytes_per_token=1)
    with LmStudioServer([model], memory_bytes=3500, guardrail=guardrail) as server:
        llm = connect(server.host).llm
        first = llm.load_new_instance("m", "a", config={"contextLength": 1000})
        with pytest.raises(lmstudio.LMStudioServerError, match=text):
            llm.load_new_instance("m", "b", config={"contextLength": 501})
        llm.load_new_instance("m", "c", config={"contextLength": 500}).unload()
        first.unload()
        llm.load_new_instance("m", "b", config={"contextLength": 2500})
        assert server.max_loaded_at_once() == 2


@pytest.mark.parametrize(
    ("version", "format", "granted"),
    [
        ("0.3.30", "gguf", None),
        ("0.4.12", "gguf", None),
        ("0.4.24", "gguf", 2_976),
        ("0.3.30", "safetensors", None),
        ("0.4.24", "safetensors", 3_000),
    ],
)
def test_later_versions_fit_the_context_to_the_machine(
    connect: Connect, version: str, format: str, granted: int | None
) -> None:
    model = StandInModel(
        key="m", format=format, size_bytes=1000, bytes_per_token=1, max_context_length=3_000
    )
    with LmStudioServer([model], memory_bytes=4_000, version=version) as server:
        llm = connect(server.host).llm
        if granted is None:
            with pytest.raises(lmstudio.LMStudioServerError, match="insufficient"):
                llm.load_new_instance("m", "a", config={"contextLength": 4_000})
        else:
            loaded = llm.load_new_instance("m", "a", config={"contextLength": 4_000})
            assert loaded.get_context_length() == granted


@pytest.mark.parametrize(("version", "slots"), [("0.3.30", None), ("0.4.12", 4), ("0.4.24", 4)])
def test_a_load_has_four_slots_by_default_in_later_versions(
    connect: Connect, version: str, slots: int | None
) -> None:
    class Which(LMStudioStruct[dict[str, object]]):
        specifier: dict[str, object]

    with LmStudioServer([TINY], version=version) as server:
        llm = connect(server.host).llm
        llm.load_new_instance("tiny", "a", config={"contextLength": 512})
        query: dict[str, object] = {"type": "query", "query": {"identifier": "a"}}
        answer = llm.remote_call("getLoadConfig", Which(query))
        settings = {field["key"]: field["value"] for field in answer["fields"]}
        assert settings.get("llm.load.numParallelSessions") == slots


def test_resource_estimates_are_optional(connect: Connect) -> None:
    class Ask(LMStudioStruct[dict[str, object]], rename="camel"):
        model_key: str
        load_config_stack: dict[str, object]

    model = StandInModel(key="m", size_bytes=1000, bytes_per_token=1)
    with LmStudioServer([model], memory_bytes=5000, estimates=True) as server:
        asked = Ask(model_key="m", load_config_stack={"layers": []})
        answer = connect(server.host).llm.remote_call("estimateModelUsage", asked)
        assert answer["memory"]["totalBytes"] == 1000 + 4096
        assert answer["passesGuardrails"] is False
        assert server.violations == []


def test_overlong_prompts_are_refused_or_cut(connect: Connect) -> None:
    with LmStudioServer([TINY]) as server:
        llm = connect(server.host).llm.load_new_instance("tiny", config={"contextLength": 100})
        with pytest.raises(lmstudio.LMStudioServerError, match=r"n_keep: 2\d\d >= n_ctx: 100"):
            llm.complete("word " * 200, config=COMPLETION)
        rolling: lmstudio.LlmPredictionConfigDict = {"contextOverflowPolicy": "rollingWindow"}
        reply = llm.complete("word " * 200 + "2+3=", config=rolling)
        assert reply.content == "5"
        assert reply.stats.prompt_tokens_count == 76


def test_reasoning_fragments_are_marked(connect: Connect) -> None:
    model = StandInModel(key="r1", behaviours=(Reasons(tokens=3),))
    with LmStudioServer([model]) as server:
        stream = connect(server.host).llm.load_new_instance("r1").respond_stream("2+3=")
        kinds = [fragment.reasoning_type for fragment in stream]
    assert kinds == ["reasoningStartTag", *["reasoning"] * 3, "reasoningEndTag", "none"]
    assert stream.result().content == "<think> hmm hmm hmm</think>5"


def test_reasoning_may_be_marked_by_tags_only(connect: Connect) -> None:
    model = StandInModel(key="r1", behaviours=(Reasons(tokens=1, parsed=False),))
    with LmStudioServer([model]) as server:
        stream = connect(server.host).llm.load_new_instance("r1").respond_stream("2+3=")
        assert {fragment.reasoning_type for fragment in stream} == {"none"}
    assert stream.result().content == "<think> hmm</think>5"


def test_stats_may_be_missing(connect: Connect) -> None:
    model = StandInModel(key="shy", reports_stats=False)
    with LmStudioServer([model]) as server:
        stats = connect(server.host).llm.load_new_instance("shy").complete("2+3=").stats
    assert stats.stop_reason == "eosFound"
    assert stats.prompt_tokens_count is stats.time_to_first_token_sec is None


def test_the_log_lists_instances_loaded_at_the_end(connect: Connect) -> None:
    with LmStudioServer([TINY]) as server:
        connect(server.host).llm.load_new_instance("tiny", "left")
    assert server.loaded() == ("left",)
    assert [change.why for change in server.changes] == ["load"]


def test_a_port_in_use_is_an_immediate_error() -> None:
    with LmStudioServer() as server, pytest.raises(ExceptionGroup) as error:
        LmStudioServer(port=server.port).__enter__()
    assert error.value.subgroup(OSError)


def test_a_stream_can_be_cancelled(connect: Connect) -> None:
    stuck = Fault(where="fragment", kind="hang", after=2)
    with LmStudioServer([TINY], faults=[stuck]) as server:
        llm = connect(server.host).llm.load_new_instance("tiny")
        stream = llm.complete_stream("What is it?")
        fragments = iter(stream)
        next(fragments)
        next(fragments)  # both tokens are counted before the server gets the request to cancel
        stream.cancel()
        server.wait_for(lambda: server.predictions()[0].cancelled)
        server.release()
        assert list(fragments) == []
        assert stream.result().stats.stop_reason == "userStopped"
        assert stream.result().stats.predicted_tokens_count == 2
        server.wait_for(lambda: server.predictions()[0].outcome == "cancelled")
        assert llm.complete("2+3=").content == "5"


@pytest.mark.parametrize("text", hostile.TEXTS.values(), ids=hostile.TEXTS.keys())
def test_hostile_texts_are_transmitted_unchanged(connect: Connect, text: str) -> None:
    model = StandInModel(key="m", behaviours=(Says(text=text),))
    with LmStudioServer([model]) as server:
        llm = connect(server.host).llm.load_new_instance("m", config={"contextLength": 100_000})
        assert llm.complete(text).content == text
        assert server.predictions()[0].prompt_tail == text[-200:]
        assert server.violations == []


def test_ten_megabytes_on_one_line(connect: Connect) -> None:
    model = StandInModel(key="m", behaviours=(Says(text=hostile.HUGE_LINE),))
    with LmStudioServer([model]) as server:
        reply = connect(server.host).llm.load_new_instance("m").complete("?", config=COMPLETION)
    assert len(reply.content) > 10_000_000


def test_a_locked_server(connect: Connect) -> None:
    with LmStudioServer([TINY], api_tokens=["abcd:efgh"]) as server:
        # The SDK's error for a refused greeting.
        with pytest.raises(ValueError, match="dictionary update sequence"):
            connect(server.host).llm.list_loaded()

        class Client(lmstudio.Client):
            def _create_auth_message(self) -> dict[str, object]:
                return dict(self._format_auth_message("abcd", "efgh"))

        with Client(server.host) as client:
            assert client.llm.list_loaded() == []
