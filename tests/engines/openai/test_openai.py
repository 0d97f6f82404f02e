"""The engine `openai` on stand-ins for the servers of several dialects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LoadSettings, Message, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.openai.client import BUSY_SECONDS, OpenAiClient
from pytest_lmstrix.engines.openai.engine import OpenAiEngine
from pytest_lmstrix.engines.openai.instance import OpenAiInstance
from pytest_lmstrix.engines.openai.key import HIDDEN, ApiKey
from tests.standin.lmstudio import StandInModel
from tests.standin.openai import Dialect, Faults, OpenAiServer

CONTEXT = 2048
FEW_SHOT = "1 + 1 = 2\n4 + 4 = 8\n6 + 3 = 9\n2 + 3 ="
STORY = "The miller went down to the river. He had lost his key. "
KEY = "sk-test-5f0c2b7e91"
VARIABLE = "TINY_SERVER_KEY"
TINY = StandInModel(key="tiny")


class Ignored:
    """A `Progress` that ignores every report."""

    def __call__(self, fraction: float, /) -> None:
        pass

    def prefill(self, done: int, total: int) -> None:
        pass


class Attached:
    """A server and the engine on it."""

    def __init__(self, cleanup: ExitStack) -> None:
        self._cleanup = cleanup
        self.pauses: list[float] = []

    def start(
        self,
        dialect: Dialect = Dialect.VLLM,
        *,
        api_key: str | None = None,
        reply_timeout: float = 30.0,
        **faults: Any,
    ) -> Attached:
        server = OpenAiServer(TINY, CONTEXT, dialect, Faults(**faults), api_key=api_key)
        self.server = self._cleanup.enter_context(server)
        self.engine = OpenAiEngine(
            self.server.host, reply_timeout=reply_timeout, pause=self.pauses.append
        )
        self._cleanup.callback(self.engine.close)
        return self

    def load(self, context_length: int = CONTEXT, **fields: Any) -> OpenAiInstance:
        model = Model(**{"id": "tiny", "engine": "openai", **fields})
        return self.engine.load(model, context_length, Ignored())


@pytest.fixture
def attached() -> Iterator[Attached]:
    with ExitStack() as cleanup:
        yield Attached(cleanup)


@pytest.mark.parametrize("dialect", Dialect)
def test_every_dialect_answers_and_counts(attached: Attached, dialect: Dialect) -> None:
    instance = attached.start(dialect).load()
    reply = instance.complete(FEW_SHOT, max_tokens=4)
    assert "5" in reply.text
    assert reply.stop_reason in ("stop", "length")
    assert reply.completion_tokens is not None
    assert 0 < reply.completion_tokens <= 4
    assert reply.prompt_tokens == instance.count_tokens(FEW_SHOT) + TINY.bos_tokens
    chat = instance.chat([Message(role="user", content="Say hello")], max_tokens=12)
    assert "hello" in chat.text.lower()


@pytest.mark.parametrize("dialect", Dialect)
def test_all_dialects_count_the_same_tokens(attached: Attached, dialect: Dialect) -> None:
    instance = attached.start(dialect).load()
    text = STORY * 30
    assert instance.count_tokens(text) == len(attached.server.mind.tokenize(text))
    assert instance.count_tokens("") == 0


@pytest.mark.parametrize("dialect", [Dialect.VLLM, Dialect.SGLANG, Dialect.LLAMACPP])
def test_the_granted_context_is_read_from_the_server(attached: Attached, dialect: Dialect) -> None:
    attached.start(dialect)
    for asked in (512, CONTEXT, 100_000):
        instance = attached.load(asked)
        assert (instance.context_length, instance.notes) == (CONTEXT, ())
    assert attached.server.asked == []


def test_a_context_that_is_not_reported_is_noted(attached: Attached) -> None:
    instance = attached.start(Dialect.PLAIN).load(1024)
    assert instance.context_length == 1024
    assert instance.notes == ("context: the server does not report how much it has",)


def test_a_prompt_beyond_the_context_is_an_error(attached: Attached) -> None:
    instance = attached.start().load()
    with pytest.raises(Failure) as failed:
        instance.complete(STORY * 500, max_tokens=1)
    assert failed.value.verdict is Verdict.CONTEXT_TOO_LARGE


def test_the_facts_are_those_of_the_listing(attached: Attached) -> None:
    engine = attached.start(Dialect.LLAMACPP).engine
    facts = engine.facts(Model(id="mine", engine="openai", served_name="tiny"))
    assert facts is not None
    assert (facts.id, facts.context_limit) == ("mine", TINY.max_context_length)
    assert facts.size_bytes == TINY.size_bytes
    assert engine.facts(Model(id="other", engine="openai")) is None
    assert [each.id for each in engine.models()] == ["tiny"]
    assert len(attached.server.requests) == 2


@pytest.mark.parametrize(
    ("dialect", "version"),
    [(Dialect.VLLM, "0.11.2"), (Dialect.LLAMACPP, "0.11.2"), (Dialect.PLAIN, None)],
)
def test_the_version_is_that_of_the_server(
    attached: Attached, dialect: Dialect, version: str | None
) -> None:
    assert attached.start(dialect).engine.version == version


def test_the_key_model_names_it_on_the_server(attached: Attached) -> None:
    instance = attached.start().load(id="my-model", served_name="tiny")
    instance.complete(FEW_SHOT, max_tokens=2)
    assert attached.server.requests[-1][1]["model"] == "tiny"


def test_a_model_that_the_server_does_not_have_is_not_found(attached: Attached) -> None:
    with pytest.raises(Failure, match="it has 'tiny', and the key model") as failed:
        attached.start().load(id="missing")
    assert (failed.value.verdict, failed.value.phase) == (Verdict.MODEL_NOT_FOUND, "load")


def test_a_server_without_a_listing_is_used_as_it_is(attached: Attached) -> None:
    instance = attached.start(no_listing=True).load(1024)
    assert instance.context_length == 1024
    assert "5" in instance.complete(FEW_SHOT, max_tokens=4).text


def test_load_settings_are_reported_as_ignored(attached: Attached) -> None:
    load = LoadSettings(kv_cache_type="q8_0", gpu_layers=3)
    assert set(attached.start().load(load=load).ignored_settings) == {"kv_cache_type", "gpu_layers"}


def test_a_server_that_only_chats_gets_prompts_as_messages(attached: Attached) -> None:
    instance = attached.start(no_completions=True).load()
    for _ in range(2):
        assert "5" in instance.complete(FEW_SHOT, max_tokens=4).text
    assert attached.server.asked == ["/v1/completions", *["/v1/chat/completions"] * 2]
    assert instance.notes == (
        "prompts: the server has no completions, so all went through its template",
    )


def test_tokens_are_counted_by_usage_of_chats_too(attached: Attached) -> None:
    instance = attached.start(Dialect.PLAIN, no_completions=True).load()
    text = STORY * 10
    # The template may trim or merge the space at its end.
    assert 0 <= len(attached.server.mind.tokenize(text)) - instance.count_tokens(text) <= 1


def test_a_server_without_usage_reports_no_tokens(attached: Attached) -> None:
    instance = attached.start(no_usage=True).load()
    reply = instance.complete(FEW_SHOT, max_tokens=4)
    assert (reply.prompt_tokens, reply.completion_tokens) == (None, None)
    assert "5" in reply.text
    assert instance.count_tokens(FEW_SHOT) > 0


def test_without_usage_and_tokenizer_nothing_can_be_counted(attached: Attached) -> None:
    instance = attached.start(no_usage=True, no_tokenize=True).load()
    with pytest.raises(Failure, match="nor reports the tokens of a prompt") as failed:
        instance.count_tokens(STORY)
    assert failed.value.verdict is Verdict.INCONCLUSIVE


def test_stream_options_that_are_refused_are_left_out(attached: Attached) -> None:
    instance = attached.start(refuses_stream_options=True).load()
    for _ in range(2):
        assert "5" in instance.complete(FEW_SHOT, max_tokens=4).text
    assert attached.server.predictions == 3


def test_the_budget_has_the_name_that_the_server_takes(attached: Attached) -> None:
    instance = attached.start(wants_completion_tokens=True).load()
    for _ in range(2):
        assert instance.complete(FEW_SHOT, max_tokens=4).completion_tokens in range(1, 5)
    assert attached.server.predictions == 3


def test_a_temperature_of_0_that_is_refused_is_left_out_and_noted(attached: Attached) -> None:
    instance = attached.start(refuses_greedy=True, refuses_stream_options=True).load()
    for _ in range(2):
        assert "5" in instance.complete(FEW_SHOT, max_tokens=4).text
    assert attached.server.predictions == 4
    assert any(note.startswith("temperature: ") for note in instance.notes)
    instance.complete(FEW_SHOT, max_tokens=4, temperature=0.5)
    assert attached.server.requests[-1][1]["temperature"] == 0.5


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_after_the_time_it_names(
    attached: Attached, status: int
) -> None:
    instance = attached.start(busy=2, busy_status=status, retry_after="7").load()
    assert "5" in instance.complete(FEW_SHOT, max_tokens=4).text
    assert attached.pauses == [7, 7]


def test_a_date_is_a_time_to_wait_until_too(attached: Attached) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    attached.start(busy=1, retry_after=at).load().complete(FEW_SHOT, max_tokens=4)
    (pause,) = attached.pauses
    assert 10 < pause <= 20


@pytest.mark.parametrize("given", [None, "soon", "-3", "0", "1e9"])
def test_without_a_time_the_pauses_grow(attached: Attached, given: str | None) -> None:
    attached.start(busy=3, retry_after=given).load().complete(FEW_SHOT, max_tokens=4)
    growing = [0.5, 1, 2] if given != "0" else [0.5] * 3
    assert attached.pauses == growing


def test_a_server_that_stays_busy_is_given_up(attached: Attached) -> None:
    instance = attached.start(busy=10_000).load()
    with pytest.raises(Failure, match=r"the server is busy \(429\): too many") as failed:
        instance.complete(FEW_SHOT, max_tokens=4)
    assert failed.value.verdict is Verdict.HOST_TROUBLE
    assert 30 < sum(attached.pauses) <= BUSY_SECONDS


def test_a_wait_beyond_the_limit_is_not_begun(attached: Attached) -> None:
    instance = attached.start(busy=1, retry_after="3600").load()
    with pytest.raises(Failure, match="asks to wait 3,600 s") as failed:
        instance.complete(FEW_SHOT, max_tokens=4)
    assert failed.value.verdict is Verdict.HOST_TROUBLE
    assert attached.pauses == []


def test_an_answer_that_is_cut_is_a_lost_connection(attached: Attached) -> None:
    instance = attached.start(cut=1).load()
    with pytest.raises(Failure, match="connection to the server lost") as failed:
        instance.complete(FEW_SHOT, max_tokens=4)
    assert (failed.value.verdict, failed.value.final) == (Verdict.UNREACHABLE, False)
    assert "5" in instance.complete(FEW_SHOT, max_tokens=4).text


@pytest.mark.parametrize(
    ("fault", "words"),
    [("ends_early", "the server broke off its reply"), ("error_in_stream", "EngineCore")],
)
def test_an_answer_without_an_end_is_an_error(attached: Attached, fault: str, words: str) -> None:
    instance = attached.start(**{fault: True}).load()
    with pytest.raises(Failure, match=words) as failed:
        instance.complete(FEW_SHOT, max_tokens=4)
    assert failed.value.verdict is Verdict.ENGINE_ERROR


def test_a_silence_in_mid_answer_times_out(attached: Attached) -> None:
    instance = attached.start(freezes=True, reply_timeout=0.3).load()
    with pytest.raises(Failure) as failed:
        instance.complete(FEW_SHOT + STORY * 10, max_tokens=4)
    assert failed.value.verdict is Verdict.TIMEOUT


def test_an_unreachable_server_is_asked_once_for_all_models() -> None:
    with OpenAiServer(TINY, CONTEXT) as server:
        pass
    engine = OpenAiEngine(server.host)
    raised = []
    for name in ("tiny", "other"):
        with pytest.raises(Failure) as failed:
            engine.facts(Model(id=name, engine="openai"))
        raised.append(failed.value)
    assert raised[0] is raised[1]
    assert (raised[0].verdict, raised[0].final) == (Verdict.UNREACHABLE, False)


def test_without_a_server_the_user_learns_how_to_name_one() -> None:
    engine = OpenAiEngine()
    assert engine.version is None
    with pytest.raises(Failure, match="give the model the key url, or name a host") as failed:
        engine.load(Model(id="tiny", engine="openai"), 512, Ignored())
    assert failed.value.final


def test_an_unloaded_instance_sends_nothing_and_the_server_keeps_its_model(
    attached: Attached,
) -> None:
    instance = attached.start().load()
    instance.unload()
    instance.unload()
    before = len(attached.server.requests)
    with pytest.raises(Failure) as failed:
        instance.complete(FEW_SHOT, max_tokens=2)
    assert failed.value.verdict is Verdict.ENGINE_ERROR
    assert len(attached.server.requests) == before


class TestApiKey:
    def test_it_is_sent_with_every_request(
        self, attached: Attached, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, f" {KEY}\n")
        instance = attached.start(api_key=KEY).load(api_key_env=VARIABLE)
        assert "5" in instance.complete(FEW_SHOT, max_tokens=4).text
        instance.count_tokens(STORY)
        assert set(attached.server.keys) == {f"Bearer {KEY}"}

    def test_a_server_that_wants_one_is_not_asked_again(self, attached: Attached) -> None:
        with pytest.raises(Failure, match=r"wants an API key \(401\): name the") as failed:
            attached.start(api_key=KEY).load()
        assert (failed.value.verdict, failed.value.final) == (Verdict.UNREACHABLE, True)
        assert len(attached.server.requests) == 1

    def test_a_refused_key_is_named_by_its_variable_only(
        self, attached: Attached, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, "sk-wrong-key-of-mine")
        with pytest.raises(Failure) as failed:
            attached.start(api_key=KEY, echoes_key=True).load(api_key_env=VARIABLE)
        assert failed.value.text == (
            f"the server refuses the API key in the environment variable {VARIABLE} (401):"
            f" Incorrect API key provided: Bearer {HIDDEN}"
        )
        assert failed.value.final

    @pytest.mark.parametrize("value", [None, "", "  ", "sk-\u200bhidden", "sk-a\nb"])
    def test_without_a_valid_key_nothing_is_sent(
        self, attached: Attached, monkeypatch: pytest.MonkeyPatch, value: str | None
    ) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        if value is not None:
            monkeypatch.setenv(VARIABLE, value)
        with pytest.raises(Failure, match=f"the environment variable {VARIABLE}") as failed:
            attached.start().load(api_key_env=VARIABLE)
        assert failed.value.final
        assert value is None or not value.strip() or value not in failed.value.text
        assert attached.server.requests == []

    def test_it_is_taken_out_of_replies(
        self, attached: Attached, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, KEY)
        instance = attached.start(api_key=KEY, echoes_key=True).load(api_key_env=VARIABLE)
        text = instance.complete(FEW_SHOT, max_tokens=4).text
        assert KEY not in text
        assert HIDDEN in text

    def test_another_server_does_not_get_it(
        self, attached: Attached, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, KEY)
        with OpenAiServer(TINY, CONTEXT) as other:
            attached.start(redirect=other.url)
            with pytest.raises(
                Failure, match=r"\(307\): it sends clients on to http://127"
            ) as failed:
                attached.load(api_key_env=VARIABLE)
            assert f"{other.url}/v1/models: name that address" in failed.value.text
            assert other.requests == []

    def test_no_frame_of_an_error_shows_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, KEY)
        with OpenAiServer(TINY, CONTEXT, api_key=KEY) as server:
            pass
        client = OpenAiClient(server.url, ApiKey(VARIABLE))
        with pytest.raises(Failure) as failed:
            client.get("/v1/models", dict, phase="load")
        shown = failed.getrepr(showlocals=True, chain=True, funcargs=True)
        assert "not reachable" in str(shown)
        assert KEY not in str(shown)
