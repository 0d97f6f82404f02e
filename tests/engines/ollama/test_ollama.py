"""The engine `ollama` against the stand-in server: other clients, faults, and older releases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LoadSettings, Message, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.ollama.address import ollama_url
from pytest_lmstrix.engines.ollama.client import OllamaClient
from pytest_lmstrix.engines.ollama.engine import OllamaEngine
from pytest_lmstrix.engines.ollama.instance import OllamaInstance
from pytest_lmstrix.engines.ollama.listing import full_name
from pytest_lmstrix.system.addresses import ollama_host
from tests.standin.lmstudio import Crashes, Reasons, Says, StandInModel
from tests.standin.lmstudio.models import brain
from tests.standin.ollama import OllamaServer, Quirks
from tests.standin.openai.canned import Canned, CannedServer

TINY = StandInModel(key="tiny:latest", max_context_length=8192)
MODEL = Model(id="tiny", engine="ollama")
PROMPT = "1 + 1 = 2\n4 + 4 = 8\n2 + 3 ="
STORY = "The miller went down to the river. He had lost his key. "


class Ignored:
    """A `Progress` that ignores every report."""

    def __call__(self, fraction: float, /) -> None:
        pass

    def prefill(self, done: int, total: int) -> None:
        pass


def load(engine: OllamaEngine, size: int = 1024, model: Model = MODEL) -> OllamaInstance:
    return engine.load(model, size, Ignored())


@contextmanager
def running(
    quirks: Quirks | None = None,
    *models: StandInModel,
    notes: Path | None = None,
    load_timeout: float = 30.0,
    reply_timeout: float = 30.0,
    owner: str = "me",
) -> Iterator[tuple[OllamaServer, OllamaEngine]]:
    """A stand-in server and an engine for it."""
    with ExitStack() as cleanup:
        server = cleanup.enter_context(OllamaServer(models or [TINY], quirks))
        engine = OllamaEngine(
            server.host,
            load_timeout=load_timeout,
            reply_timeout=reply_timeout,
            owner=owner,
            confirm_seconds=1.0,
            notes=notes,
        )
        cleanup.callback(engine.close)
        yield server, engine


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (" '10.0.0.5' ", "http://10.0.0.5:11434"),
        ("example.test:8080", "http://example.test:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("http://example.test", "http://example.test:80"),
        ("https://example.test", "https://example.test:443"),
        ("https://example.test:1/ollama/", "https://example.test:1/ollama"),
        ("example.test:66000", "http://example.test:11434"),
        ("[::1]:5", "http://[::1]:5"),
        ("::1", "http://[::1]:11434"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(given: str, url: str) -> None:
    assert ollama_url(given) == url


@pytest.mark.parametrize(
    "given", ["ollama://", "http://a:1", "ollama://a:99999", "ollama://a:1/v1", "ollama://a:0"]
)
def test_other_addresses_are_not_hosts(given: str) -> None:
    with pytest.raises(ValueError, match="is not ollama://host:port"):
        ollama_host(given)


@pytest.mark.parametrize("release", [(0, 33, 0), (0, 6, 0)], ids=["new", "old"])
def test_models_are_listed_with_their_facts(release: tuple[int, int, int]) -> None:
    embedding = StandInModel(key="vectors", type="embedding")
    with running(Quirks(release=release), TINY, embedding) as (_, engine):
        tiny, vectors = engine.models()
    assert (tiny.id, tiny.type, tiny.context_limit) == ("tiny:latest", "llm", 8192)
    assert (tiny.size_bytes, tiny.quantization) == (TINY.size_bytes, "Q4_K_M")
    assert vectors.type == "embedding"


def test_models_of_the_cloud_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    cloud = StandInModel(key="huge:cloud", listing={"remote_model": "huge"})
    with running(None, TINY, cloud) as (server, engine):
        assert [facts.id for facts in engine.models()] == ["tiny:latest"]
        with pytest.raises(Failure) as failed:
            load(engine, model=Model(id="huge:cloud", engine="ollama"))
        assert server.loaded == {}
    assert failed.value.verdict is Verdict.UNSUPPORTED
    assert "computes it in the cloud" in caplog.text


def test_every_request_names_the_same_context_which_does_not_shift() -> None:
    with running() as (server, engine):
        instance = load(engine)
        instance.complete(PROMPT, max_tokens=2)
        instance.chat([Message(role="user", content="Say hello")], max_tokens=4)
        instance.count_tokens(STORY)
        instance.unload()
        assert server.events == ["load tiny:latest 1024", "unload tiny:latest"]
        asked = [body for _, body in server.requests if body.get("keep_alive")]
        assert len(asked) >= 4
        assert all(body["shift"] is False for body in asked)


@pytest.mark.parametrize(
    ("quirks", "granted"),
    [
        (Quirks(grants_half=True), 512),
        (Quirks(release=(0, 9, 0)), 1024),
    ],
    ids=["half", "not reported"],
)
def test_the_granted_context_is_read_back(quirks: Quirks, granted: int) -> None:
    with running(quirks) as (_, engine):
        instance = load(engine)
        assert instance.context_length == granted
        noted = any(note.startswith("context: ") for note in instance.notes)
        assert noted == (quirks.release < (0, 15, 5))


@pytest.mark.parametrize(
    ("share", "note"), [(1.0, "gpu: all"), (0.25, "gpu: 25% of it; 75%"), (0.0, "gpu: none")]
)
def test_the_share_on_the_gpu_is_noted(share: float, note: str) -> None:
    with running(Quirks(vram_share=share)) as (_, engine):
        instance = load(engine)
        assert instance.notes[0].startswith(note)
        assert instance.peak_memory_bytes == TINY.needed_bytes(1024)


@pytest.mark.parametrize(
    "release", [(0, 12, 0), (0, 30, 11)], ids=["cuts to the context", "cuts to half"]
)
def test_a_prompt_that_is_cut_without_an_error_is_found(release: tuple[int, int, int]) -> None:
    quirks = Quirks(release=release, grants_half=True, reports_asked=True)
    with running(quirks) as (server, engine):
        instance = load(engine)
        assert instance.context_length == 1024
        with pytest.raises(Failure) as failed:
            instance.complete(STORY * 50, max_tokens=1)
    refused = release >= (0, 12, 6)
    expected = Verdict.CONTEXT_TOO_LARGE if refused else Verdict.PROMPT_TRUNCATED
    assert failed.value.verdict is expected
    assert all(body["truncate"] is False for _, body in server.requests if "prompt" in body)


def test_long_texts_are_counted_in_pieces_within_the_context() -> None:
    with running() as (_, engine):
        instance = load(engine, 512)
        assert instance.count_tokens(STORY * 200) == brain.count_tokens(STORY * 200)
        assert instance.count_tokens("") == 0


def test_texts_that_begin_alike_are_measured_once() -> None:
    with running() as (server, engine):
        instance = load(engine, 4096)
        instance.count_tokens(STORY * 200)
        before = len(server.requests)
        instance.count_tokens(STORY * 200 + "And then he went home.")
        assert len(server.requests) == before + 1


@pytest.mark.parametrize("release", [(0, 3, 14), (0, 30, 0)])
def test_releases_that_do_not_count_cached_tokens_are_named(
    release: tuple[int, int, int],
) -> None:
    with running(Quirks(release=release)) as (_, engine):
        instance = load(engine)
        assert "5" in instance.complete(PROMPT, max_tokens=4).text
        assert instance.complete(PROMPT, max_tokens=4).prompt_tokens is None
        with pytest.raises(Failure, match="does not count cached prompt tokens") as failed:
            instance.count_tokens(STORY)
    assert failed.value.verdict is Verdict.INCONCLUSIVE


def test_thinking_is_switched_off_in_chats() -> None:
    thinker = StandInModel(key="tiny", behaviours=(Reasons(tokens=50),))
    with running(None, thinker) as (server, engine):
        reply = load(engine).chat([Message(role="user", content="Say hello")], max_tokens=10)
    assert ("Hello" in reply.text, reply.reasoning) == (True, "")
    assert server.requests[-2][1]["think"] is False or server.requests[-1][1]["think"] is False


def test_a_model_of_another_client_is_never_replaced() -> None:
    with running() as (server, engine):
        server.use("tiny", 4096)
        assert engine.others() == {"tiny:latest": TINY.needed_bytes(4096)}
        with pytest.raises(Failure, match="another client has tiny:latest loaded") as failed:
            load(engine)
        engine.sweep(lambda owner: True)
        engine.close()
        assert server.loaded == {"tiny:latest": 4096}
    assert (failed.value.verdict, failed.value.phase) == (Verdict.HOST_TROUBLE, "load")


def test_the_interface_of_openai_takes_no_context_length() -> None:
    with running() as (server, engine):
        instance = load(engine)
        httpx.post(
            f"http://{server.address}/v1/chat/completions",
            json={
                "model": "tiny",
                "messages": [{"role": "user", "content": "Say hello"}],
                "options": {"num_ctx": 1024},
            },
        )
        assert server.loaded == {"tiny:latest": 4096}
        with pytest.raises(Failure, match="with 4,096 tokens instead of 1,024"):
            instance.complete(PROMPT, max_tokens=2)


def test_a_slow_load_within_the_limit_is_a_load() -> None:
    with running(Quirks(load_seconds=0.5), load_timeout=20) as (server, engine):
        load(engine).unload()
        assert server.events == ["load tiny:latest 1024", "unload tiny:latest"]


def test_an_answer_without_any_line_is_an_error() -> None:
    model = StandInModel(key="tiny", behaviours=(Says(text=""),))
    with running(Quirks(unfinished=True), model) as (_, engine):
        instance = load(engine)
        with pytest.raises(Failure, match="without a last line") as failed:
            instance.complete(PROMPT, max_tokens=2)
    assert failed.value.verdict is Verdict.ENGINE_ERROR


def test_a_model_that_another_client_takes_over_is_left_to_it() -> None:
    with running() as (server, engine):
        instance = load(engine)
        answer = httpx.post(
            f"http://{server.address}/v1/chat/completions",
            json={"model": "tiny", "messages": [{"role": "user", "content": "Say hello"}]},
        )
        assert answer.is_success
        assert server.loaded == {"tiny:latest": 4096}
        with pytest.raises(Failure, match="with 4,096 tokens instead of 1,024") as failed:
            instance.complete(PROMPT, max_tokens=2)
        instance.unload()
        assert server.loaded == {"tiny:latest": 4096}
    assert failed.value.verdict is Verdict.HOST_TROUBLE


def test_an_evicted_model_is_the_hosts_trouble() -> None:
    with running() as (server, engine):
        instance = load(engine)
        server.evict("tiny")
        with pytest.raises(Failure, match="another client has unloaded tiny") as failed:
            instance.complete(PROMPT, max_tokens=2)
        instance.unload()
    assert failed.value.verdict is Verdict.HOST_TROUBLE


def test_a_model_that_the_load_evicts_is_noted() -> None:
    other = StandInModel(key="other")
    with running(Quirks(max_loaded=1), TINY, other) as (server, engine):
        server.use("other")
        assert "evicted: other:latest, which another client had loaded" in load(engine).notes


def test_a_slow_load_times_out_and_is_aborted() -> None:
    with running(Quirks(load_seconds=20), load_timeout=0.2) as (server, engine):
        with pytest.raises(Failure) as failed:
            load(engine)
        assert server.events == ["aborted"]
        assert server.loaded == {}
    assert (failed.value.verdict, failed.value.phase) == (Verdict.TIMEOUT, "load")


@pytest.mark.parametrize(
    ("quirks", "verdict"),
    [
        (Quirks(error_after=1), Verdict.CRASHED),
        (Quirks(lost_after=1), Verdict.UNREACHABLE),
        (Quirks(frozen_after=1), Verdict.TIMEOUT),
        (Quirks(unfinished=True), Verdict.ENGINE_ERROR),
    ],
    ids=["error line", "connection lost", "silent", "no last line"],
)
def test_a_reply_that_breaks_off_is_a_failure(quirks: Quirks, verdict: Verdict) -> None:
    with running(quirks, reply_timeout=0.5) as (server, engine):
        instance = load(engine)
        with pytest.raises(Failure) as failed:
            instance.complete(PROMPT + STORY + "He had", max_tokens=4)
        instance.unload()
        assert server.loaded == {}
    assert failed.value.verdict is verdict


def test_a_full_queue_is_the_hosts_trouble() -> None:
    with running(Quirks(busy=True)) as (_, engine), pytest.raises(Failure) as failed:
        load(engine)
    assert failed.value.verdict is Verdict.HOST_TROUBLE


def test_a_crash_at_a_load_leaves_nothing() -> None:
    with running(None, StandInModel(key="tiny", behaviours=(Crashes(),))) as (server, engine):
        with pytest.raises(Failure) as failed:
            load(engine)
        assert failed.value.verdict is Verdict.CRASHED
        load(engine).unload()
        assert server.loaded == {}


def test_a_setting_of_the_whole_server_is_refused() -> None:
    model = Model(id="tiny", engine="ollama", load=LoadSettings(kv_cache_type="q8_0"))
    with running() as (server, engine):
        with pytest.raises(Failure, match="does not support load setting kv_cache_type"):
            load(engine, model=model)
        assert server.events == []


def test_load_settings_are_options() -> None:
    model = Model(id="tiny", engine="ollama", load=LoadSettings(gpu_layers=0, threads=2))
    with running() as (server, engine):
        load(engine, model=model)
        (body,) = (body for path, body in server.requests if path == "/api/generate")
    assert body["options"] == {"num_ctx": 1024, "num_gpu": 0, "num_thread": 2}


def test_an_unload_is_confirmed() -> None:
    with running(Quirks(unload_seconds=0.3)) as (server, engine):
        load(engine).unload()
        assert server.loaded == {}
    with (
        running(Quirks(unload_seconds=60)) as (_, engine),
        pytest.raises(Failure, match="still lists tiny") as failed,
    ):
        load(engine).unload()
    assert failed.value.phase == "unload"


def test_the_sweep_unloads_only_what_an_exited_owner_has_loaded(tmp_path: Path) -> None:
    other = StandInModel(key="other")
    with running(None, TINY, other, notes=tmp_path, owner="dead") as (server, killed):
        load(killed)
        server.use("other")
        engine = OllamaEngine(server.host, notes=tmp_path, owner="me")
        assert engine.sweep(lambda owner: owner != "dead") == []
        assert engine.sweep(lambda owner: owner == "dead") == ["tiny"]
        assert server.loaded == {"other:latest": 4096}
        assert list(tmp_path.iterdir()) == []
        engine.close()


def test_the_sweep_leaves_a_model_that_was_loaded_again_since(tmp_path: Path) -> None:
    with running(None, notes=tmp_path, owner="dead") as (server, killed):
        load(killed)
        server.use("tiny", 2048)
        engine = OllamaEngine(server.host, notes=tmp_path, owner="me")
        assert engine.sweep(lambda owner: owner == "dead") == []
        assert server.loaded == {"tiny:latest": 2048}
        engine.close()


@pytest.mark.parametrize("name", ["TINY", "library/tiny", "registry.ollama.ai/library/tiny:latest"])
def test_a_model_is_known_by_all_of_its_names(name: str) -> None:
    with running() as (server, engine):
        instance = load(engine, model=Model(id=name, engine="ollama"))
        assert server.loaded == {"tiny:latest": 1024}
        instance.complete(PROMPT, max_tokens=2)
        instance.unload()
        assert server.loaded == {}


@pytest.mark.parametrize("name", ["hf.co/library/tiny:q4", "me/library:latest"])
def test_other_registries_and_namespaces_are_part_of_a_name(name: str) -> None:
    assert full_name(name) == name


def test_an_error_in_mid_stream_is_one_wherever_its_field_is() -> None:
    lines = b'{"response":"\\"error\\": none"}\n{"status":500,"error":"unexpected EOF"}\n'
    with CannedServer({"/api/generate": Canned(body=lines)}) as server:
        client = OllamaClient(server.url)
        found = client.stream("/api/generate", {}, dict, prefill_seconds=9, silence_seconds=9)
        assert "none" in next(found)["response"]
        with pytest.raises(Failure, match="unexpected EOF"):
            next(found)
        client.close()


def test_a_server_that_is_not_ollama_is_unreachable() -> None:
    with running() as (server, engine):
        engine.client.close()
        server.machine.tags = lambda: {"unexpected": 1}  # type: ignore[method-assign]
        stranger = OllamaEngine(server.host)
        with pytest.raises(Failure, match="does not answer as Ollama does") as failed:
            stranger.models()
        stranger.close()
    assert failed.value.verdict is Verdict.UNREACHABLE


def test_silence_after_the_first_token_has_its_own_limit() -> None:
    with running(Quirks(frozen_after=1), reply_timeout=0.3) as (_, engine):
        instance = load(engine, 8192)
        with pytest.raises(Failure, match=r"no sign of the model for 0\.3 s") as failed:
            instance.complete(STORY * 200 + "He had", max_tokens=4)
    assert failed.value.verdict is Verdict.TIMEOUT


@pytest.mark.parametrize(("times", "broken"), [(29, True), (31, False)])
def test_a_reply_of_equal_tokens_may_lack_its_last_line(times: int, broken: bool) -> None:
    text = "\n" * times
    model = StandInModel(key="tiny", behaviours=(Says(text=text, fragment_characters=1),))
    with running(Quirks(unfinished=True), model) as (_, engine):
        instance = load(engine)
        if broken:
            with pytest.raises(Failure, match="without a last line"):
                instance.complete(PROMPT, max_tokens=40)
        else:
            assert instance.complete(PROMPT, max_tokens=40).stop_reason is None
