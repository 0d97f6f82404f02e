"""Embedding models in each engine, beyond the contract: loads, refusals, counts, unloads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pytest_lmstrix.checks.attempt import Attempts
from pytest_lmstrix.checks.requests.embedding import EmbeddingModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, LoadSettings, Message, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Engine
from pytest_lmstrix.engines.llamacpp.arguments import embedding_load, serve_arguments
from pytest_lmstrix.engines.llamacpp.binary import Flag
from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine
from pytest_lmstrix.engines.ollama.engine import OllamaEngine
from pytest_lmstrix.engines.openai.engine import OpenAiEngine
from pytest_lmstrix.engines.request import Unable
from tests.checks.laboratory import loader_for
from tests.standin import weights
from tests.standin.lmstudio import LmStudioServer, StandInModel
from tests.standin.lmstudio.models.behaviours import SeesFirst
from tests.standin.ollama import OllamaServer
from tests.standin.openai import Dialect, Faults, OpenAiServer

VECTORS = StandInModel(key="vectors", type="embedding", max_context_length=2_048)
SIZE = 256


@contextmanager
def loaded(
    engine: Engine, model: Model | None = None, size: int = SIZE
) -> Iterator[EmbeddingModel]:
    """The model as a test of a user has it; afterwards it is unloaded."""
    entry = model or Model(id="vectors", engine=engine.name, type="embedding")
    loader = loader_for(engine)
    attempts = Attempts(loader, run="run", machine="machine")
    yield EmbeddingModel(attempts.load(Case(model=entry, context_length=size)))
    loader.unload()
    engine.close()  # type: ignore[attr-defined]


def test_lmstudio_loads_it_in_its_own_namespace_and_unloads_it() -> None:
    settings = LoadSettings(gpu_offload=0.5, flash_attention=True)
    model = Model(id="vectors", engine="lmstudio", load=settings)
    with LmStudioServer([VECTORS]) as server:
        with loaded(LmStudioEngine(server.host, owner="me-1"), model) as vectors:
            (identifier,) = server.loaded()
            assert identifier.startswith("lmstrix-me-1-embedding_")
            assert server.named("loadModel")[0].config == {
                "embedding.load.contextLength": SIZE,
                "embedding.load.llama.acceleration.offloadRatio": 0.5,
            }
            proof = vectors.check_context()
            assert not proof.counted_by_engine
            assert "larger than the max context size" in vectors.check_overflow()
            assert server.loaded() == (identifier,)
        assert server.loaded() == ()


def test_a_cut_in_lmstudio_is_found_without_a_count() -> None:
    cut = replace(VECTORS, behaviours=(SeesFirst(tokens=SIZE - 12),), cuts_texts=True)
    with LmStudioServer([cut]) as server, loaded(LmStudioEngine(server.host)) as vectors:
        for check, words in (
            (vectors.check_context, "the end of the text does not change"),
            (vectors.check_overflow, "LM Studio cut the text without an error"),
        ):
            with pytest.raises(Failure, match=words) as failed:
                check()
            assert failed.value.verdict is Verdict.PROMPT_TRUNCATED


def test_lmstudio_sweeps_what_a_dead_owner_has_left() -> None:
    with LmStudioServer([VECTORS]) as server:
        dead = LmStudioEngine(server.host, owner="dead-1")
        model = Model(id="vectors", engine="lmstudio", type="embedding")
        left = dead.load(model, SIZE, NoProgress())
        engine = LmStudioEngine(server.host, owner="me-1")
        assert engine.sweep(lambda owner: owner != "dead-1") == []
        assert engine.sweep(lambda owner: owner == "dead-1") == [left.identifier]
        assert server.loaded() == ()
        engine.close()
        dead.close()


def test_ollama_loads_it_by_a_request_without_texts() -> None:
    with OllamaServer([VECTORS]) as server:
        with loaded(OllamaEngine(server.host, owner="me")) as vectors:
            assert server.loaded == {"vectors:latest": SIZE}
            proof = vectors.check_context()
            assert proof.counted_by_engine
            assert "exceeds the context length" in vectors.check_overflow()
        embeds = [body for path, body in server.requests if path == "/api/embed"]
        assert embeds[0]["input"] == []
        assert all(body["truncate"] is False for body in embeds[1:])
        assert {body["options"]["num_ctx"] for body in embeds} == {SIZE}
        assert server.events == [f"load vectors:latest {SIZE}", "unload vectors:latest"]


@pytest.mark.parametrize(
    ("start", "connect"), [(LmStudioServer, LmStudioEngine), (OllamaServer, OllamaEngine)]
)
def test_an_embedding_model_is_not_asked_for_answers(start: Any, connect: Any) -> None:
    with start([VECTORS]) as server:
        engine = connect(server.host)
        model = Model(id="vectors", engine=engine.name, type="embedding")
        instance = engine.load(model, SIZE, NoProgress())
        with pytest.raises(Unable, match="gives vectors"):
            instance.complete("one", max_tokens=1)
        with pytest.raises(Unable, match="gives vectors"):
            instance.chat([Message(role="user", content="one")], max_tokens=1)
        instance.unload()
        engine.close()


@pytest.mark.parametrize("dialect", Dialect)
def test_openai_counts_with_or_without_a_tokenizer(dialect: Dialect) -> None:
    with (
        OpenAiServer(VECTORS, SIZE, dialect) as server,
        loaded(OpenAiEngine(server.host)) as vectors,
    ):
        assert vectors.embed(["one two", "three"])[1] == vectors.embed("three")
        assert vectors.count_tokens("one two three") == 3
        assert vectors.check_context().counted_by_engine


def test_openai_without_a_count_of_tokens_is_inconclusive() -> None:
    faults = Faults(no_usage=True)
    with (
        OpenAiServer(VECTORS, SIZE, Dialect.PLAIN, faults) as server,
        loaded(OpenAiEngine(server.host)) as vectors,
    ):
        assert vectors.dimension == VECTORS.dimension
        with pytest.raises(Failure) as failed:
            vectors.check_context()
    assert failed.value.verdict is Verdict.INCONCLUSIVE


def test_a_server_without_embeddings_is_unable() -> None:
    with (
        OpenAiServer(StandInModel(key="vectors"), SIZE) as server,
        loaded(OpenAiEngine(server.host)) as vectors,
        pytest.raises(Unable, match="the server gives no embeddings: Not Found"),
    ):
        vectors.embed("one")


FLAGS = {name: Flag((name,), takes_value=True) for name in ("--embeddings", "--pooling")}


@pytest.mark.parametrize(
    ("pooling_type", "words"),
    [
        (None, "--batch-size 768 --ubatch-size 768 --embeddings --pooling mean"),
        (0, "--batch-size 768 --ubatch-size 768 --embeddings --pooling mean"),
        (2, "--batch-size 768 --ubatch-size 768 --embeddings"),
        (3, "--batch-size 128 --ubatch-size 128 --embeddings"),
    ],
)
def test_llama_server_gets_the_flags_of_its_pooling(pooling_type: int | None, words: str) -> None:
    given = serve_arguments(
        Path("a.gguf"), 600, LoadSettings(), FLAGS, gpu=False,
        embedding=embedding_load(pooling_type),
    )  # fmt: skip
    assert " ".join(given).partition("--batch-size")[2] == words.removeprefix("--batch-size")


def test_a_pooling_of_the_user_stays() -> None:
    load = LoadSettings(extra_args=("--pooling", "last"), batch_size=64)
    given = serve_arguments(
        Path("a.gguf"), 600, load, FLAGS, gpu=False, embedding=embedding_load(None)
    )
    words = "--batch-size 64 --ubatch-size 64 --embeddings --pooling last"
    assert given[-7:] == words.split()


def test_an_old_llama_server_without_embeddings_is_trouble_of_the_host() -> None:
    with pytest.raises(Failure, match="does not know --embeddings") as failed:
        serve_arguments(
            Path("a.gguf"), 600, LoadSettings(), {}, gpu=False, embedding=embedding_load(None)
        )
    assert failed.value.verdict is Verdict.HOST_TROUBLE


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs xllamacpp")
def test_a_real_model_gives_sane_vectors_of_its_whole_context() -> None:
    from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine

    # One thread: several are very slow when other tests run at the same time.
    model = Model(
        id="smollm2", engine="llamacpp", type="embedding", source=str(weights.smollm2()),
        load=LoadSettings(threads=1),
    )  # fmt: skip
    with loaded(LlamaCppEngine(), model, size=128) as vectors:
        assert vectors.dimension == 576
        vectors.check_normalized()
        far = "The compiler reports an error."
        vectors.check_order("A cat sat on the mat.", ["A kitten lay on the rug.", far])
        proof = vectors.check_context()
        assert proof.counted_by_engine
        assert 120 <= proof.tokens <= 128
        assert proof.noise < 1e-4 < min(proof.distances.values())
        assert vectors.check_overflow()


class NoProgress:
    def __call__(self, fraction: float, /) -> None: ...

    def prefill(self, done: int, total: int) -> None: ...
