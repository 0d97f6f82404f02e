"""A running router of `llama-server`: sections, and models that other clients have loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp")

from msgspec.structs import replace

from pytest_lmstrix.checks.attempt import Attempts
from pytest_lmstrix.checks.requests.embedding import EmbeddingModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, LoadSettings, Message, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp.router.engine import LlamaRouterEngine
from pytest_lmstrix.engines.request import Unable
from tests.checks.laboratory import loader_for
from tests.standin.llama_server.program import BUILD, write_llama_server
from tests.standin.llama_server.router import Preset, Router
from tests.standin.tiny_models import write_tiny_model

TINY = Model(id="tiny", engine="llama-server")
PATIENCE = 60.0


class Silent:
    """A `Progress` that ignores every report."""

    def __call__(self, fraction: float, /) -> None:
        pass

    def prefill(self, done: int, total: int) -> None:
        pass


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[Router, LlamaRouterEngine]]]:
    """Starts a router with `tiny` of 512 and 1,024 tokens, and `other`; and an engine for it."""
    path = write_tiny_model(tmp_path / "tiny.gguf")
    presets = {
        "tiny-512": Preset(path, 512),
        "tiny-1024": Preset(path, 1024),
        "other": Preset(path, 768),
        "broken": Preset(tmp_path / "missing.gguf", 512),
        "free": Preset(path),
        "embed": Preset(path, 512, arguments=("--embedding", "--pooling", "mean")),
    }
    with ExitStack() as cleanup:

        def start(
            owner: str = "me", router: Router | None = None, **options: object
        ) -> tuple[Router, LlamaRouterEngine]:
            if router is None:
                program = write_llama_server(tmp_path)
                router = cleanup.enter_context(Router(program, presets, **options))  # type: ignore[arg-type]
            engine = LlamaRouterEngine(
                router.host,
                load_timeout=PATIENCE,
                reply_timeout=PATIENCE,
                owner=owner,
                notes=tmp_path / "notes",
            )
            cleanup.callback(engine.close)
            return router, engine

        yield start


def start_other(router: Router, name: str) -> None:
    """Load a section as another client, and wait for it."""
    router.start(name)
    deadline = time.monotonic() + PATIENCE
    while router.address_of(name) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


Start = Callable[..., tuple[Router, LlamaRouterEngine]]


def test_sections_of_several_sizes_are_one_model(start: Start) -> None:
    _, engine = start()
    facts = {each.id: (each.type, each.context_limit) for each in engine.models()}
    assert facts == {
        "tiny": ("llm", 1024),
        "other": ("llm", 768),
        "broken": ("llm", 512),
        "free": ("llm", None),
        "embed": ("embedding", 512),
    }
    assert engine.version == BUILD


def test_a_section_for_embeddings_gives_vectors(start: Start) -> None:
    router, engine = start()
    attempts = Attempts(loader_for(engine), run="run", machine="machine")
    model = Model(id="embed", engine="llama-server", type="embedding")
    vectors = EmbeddingModel(attempts.load(Case(model=model, context_length=512)))
    assert len(vectors.embed(["one", "two"])) == 2
    assert "tokens" in vectors.check_overflow()
    # A section without the flag is not one of an embedding model.
    other = EmbeddingModel(
        attempts.load(Case(model=replace(model, id="tiny-512"), context_length=512))
    )
    with pytest.raises(Unable, match="does not support embeddings"):
        other.embed("one")
    attempts.loader.unload()
    assert router.running() == []


def test_the_smallest_section_with_room_is_loaded_read_back_and_unloaded(start: Start) -> None:
    router, engine = start()
    instance = engine.load(TINY, 600, Silent())
    assert (instance.context_length, router.running()) == (1024, ["tiny-1024"])
    assert instance.complete("2 + 3 =", max_tokens=2).text == " 5"
    assert instance.chat([Message(role="user", content="Say hello")], max_tokens=4).text
    assert instance.count_tokens("is is") > 0
    instance.unload()
    instance.unload()
    assert router.running() == []
    assert (router.loads, router.unloads) == (["tiny-1024"], ["tiny-1024"])
    with pytest.raises(Failure, match="unloaded"):
        instance.complete("2 + 3 =", max_tokens=1)


def test_a_section_may_leave_the_context_to_the_model(start: Start) -> None:
    _, engine = start()
    instance = engine.load(Model(id="free", engine="llama-server"), 512, Silent())
    assert instance.context_length == 4096
    instance.unload()


def test_a_size_without_a_section_is_refused_without_a_load(start: Start) -> None:
    router, engine = start()
    with pytest.raises(Failure, match=r"1,024 tokens at most; add a section \[tiny-2048\]") as no:
        engine.load(TINY, 2048, Silent())
    assert no.value.verdict is Verdict.CONTEXT_NOT_GRANTED
    with pytest.raises(Failure, match="no section 'missing'") as missing:
        engine.load(Model(id="missing", engine="llama-server"), 512, Silent())
    assert missing.value.verdict is Verdict.MODEL_NOT_FOUND
    assert router.loads == []


def test_a_section_that_was_added_is_read(start: Start) -> None:
    router, engine = start()
    router.changed = {**router.presets, "tiny-2048": Preset(router.presets["other"].path, 2048)}
    instance = engine.load(TINY, 2048, Silent())
    assert instance.context_length == 2048
    instance.unload()


def test_presets_are_not_read_again_while_others_have_a_model_loaded(start: Start) -> None:
    router, engine = start()
    start_other(router, "other")
    router.changed = {"tiny-2048": Preset(router.presets["other"].path, 2048)}
    with pytest.raises(Failure, match="at most"):
        engine.load(TINY, 2048, Silent())
    assert router.running() == ["other"]


def test_load_settings_are_those_of_the_presets(start: Start) -> None:
    _, engine = start()
    model = Model(id="tiny", engine="llama-server", load=LoadSettings(gpu_layers=3))
    with pytest.raises(Failure, match="presets, and so no 'gpu_layers'"):
        engine.load(model, 512, Silent())


def test_a_model_that_another_client_has_loaded_is_left_alone(start: Start) -> None:
    router, engine = start()
    start_other(router, "tiny-512")
    with pytest.raises(Failure, match="another client has tiny-512 loaded") as failure:
        engine.load(TINY, 512, Silent())
    assert failure.value.verdict is Verdict.HOST_TROUBLE
    assert engine.others() == {"tiny-512": None}
    engine.close()
    assert (router.running(), router.unloads) == (["tiny-512"], [])


def test_a_load_that_would_drive_out_a_model_of_another_client_is_not_tried(start: Start) -> None:
    router, engine = start(models_max=1)
    start_other(router, "other")
    with pytest.raises(Failure, match="room for 1 models") as failure:
        engine.load(TINY, 512, Silent())
    assert failure.value.verdict is Verdict.HOST_TROUBLE
    assert router.running() == ["other"]


def test_a_model_that_another_client_has_unloaded_is_not_the_fault_of_the_model(
    start: Start,
) -> None:
    router, engine = start()
    instance = engine.load(TINY, 512, Silent())
    router.end("tiny-512")
    with pytest.raises(Failure, match="another client has unloaded tiny-512") as failure:
        instance.complete("2 + 3 =", max_tokens=1)
    assert failure.value.verdict is Verdict.HOST_TROUBLE


def test_a_model_that_another_client_has_loaded_again_is_theirs(start: Start) -> None:
    router, engine = start()
    instance = engine.load(TINY, 512, Silent())
    router.end("tiny-512")
    router.loads.append("tiny-512")
    start_other(router, "tiny-512")
    with pytest.raises(Failure, match="another client has unloaded tiny-512"):
        instance.count_tokens("a")
    instance.unload()
    engine.close()
    assert router.running() == ["tiny-512"]


def test_a_server_of_the_router_that_crashes_is_named(start: Start) -> None:
    router, engine = start()
    instance = engine.load(TINY, 512, Silent())
    router.crash("tiny-512")
    with pytest.raises(Failure, match="exit status 1") as failure:
        instance.complete("2 + 3 =", max_tokens=1)
    assert failure.value.verdict is Verdict.CRASHED
    instance.unload()


def test_a_section_that_does_not_load_is_named(start: Start) -> None:
    _, engine = start()
    with pytest.raises(Failure, match="of broken ended: exit status 1") as failure:
        engine.load(Model(id="broken", engine="llama-server"), 512, Silent())
    assert (failure.value.verdict, failure.value.phase) == (Verdict.ENGINE_ERROR, "load")


def test_what_an_exited_owner_has_loaded_is_unloaded_and_nothing_else(start: Start) -> None:
    router, left = start(owner="exited")
    left.load(TINY, 512, Silent())
    start_other(router, "other")
    _, engine = start(owner="me", router=router)
    assert engine.sweep(lambda owner: False) == []
    assert engine.sweep(lambda owner: owner == "exited") == ["tiny-512"]
    assert router.running() == ["other"]
    assert engine.sweep(lambda owner: owner == "exited") == []


def test_a_router_that_does_not_answer_is_unreachable(start: Start) -> None:
    engine = LlamaRouterEngine("llama-server+http://127.0.0.1:9")
    for call in (engine.models, lambda: engine.load(TINY, 512, Silent())):
        with pytest.raises(Failure, match="does not answer") as failure:
            call()
        assert failure.value.verdict is Verdict.UNREACHABLE
    assert engine.version is None


def test_a_server_with_one_model_is_not_a_router(start: Start) -> None:
    router, engine = start(is_router=False)
    with pytest.raises(Failure, match=rf"test its one model as openai\+{router.url}") as failure:
        engine.models()
    assert (failure.value.verdict, failure.value.final) == (Verdict.UNREACHABLE, True)


def test_the_key_of_a_router_is_read_and_shown_nowhere(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMA_API_KEY", raising=False)
    router, without = start(api_key="secret-key")
    with pytest.raises(Failure, match="needs an API key: set LLAMA_API_KEY"):
        without.models()
    monkeypatch.setenv("LLAMA_API_KEY", "wrong-key")
    _, wrong = start(router=router)
    with pytest.raises(Failure, match="refuses the API key in LLAMA_API_KEY") as failure:
        wrong.models()
    assert "wrong-key" not in failure.value.explain()
    monkeypatch.setenv("LLAMA_API_KEY", "secret-key")
    _, engine = start(router=router)
    instance = engine.load(TINY, 512, Silent())
    assert instance.complete("2 + 3 =", max_tokens=2).text == " 5"
    instance.unload()
