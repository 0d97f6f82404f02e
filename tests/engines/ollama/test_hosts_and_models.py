"""Where Ollama runs, and which models it lists."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.ollama.address import ollama_url
from pytest_lmstrix.engines.ollama.engine import OllamaEngine
from pytest_lmstrix.engines.ollama.listing import full_name
from pytest_lmstrix.system.addresses import ollama_host
from tests.engines.ollama.loads import PROMPT, TINY, load, running
from tests.standin.lmstudio import StandInModel
from tests.standin.ollama import Quirks


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


def test_a_server_that_is_not_ollama_is_unreachable() -> None:
    with running() as (server, engine):
        engine.client.close()
        server.machine.tags = lambda: {"unexpected": 1}  # type: ignore[method-assign]
        stranger = OllamaEngine(server.host)
        with pytest.raises(Failure, match="does not answer as Ollama does") as failed:
            stranger.models()
        stranger.close()
    assert failed.value.verdict is Verdict.UNREACHABLE


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
