"""The contract of every engine: the same tests for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Engine, Instance
from pytest_lmstrix.engines.llamacpp.engine import ChildEngine
from tests.standin import weights
from tests.standin.fake_engine import FakeEngine
from tests.standin.llama_server.program import llama_server
from tests.standin.lmstudio import LmStudioServer, StandInModel
from tests.standin.ollama import OllamaServer
from tests.standin.openai import OpenAiServer

SMALL, LARGE = 512, 1024
FEW_SHOT = "1 + 1 = 2\n4 + 4 = 8\n6 + 3 = 9\n2 + 3 ="
STORY = "The miller went down to the river. He had lost his key. "


class Ignored:
    """A `Progress` that ignores every report."""

    def __call__(self, fraction: float, /) -> None:
        pass

    def prefill(self, done: int, total: int) -> None:
        pass


class ModelLoader(Struct, frozen=True, kw_only=True):
    """An engine with a model that it has and one that it does not have."""

    engine: Engine
    model: Model
    missing: Model
    loaded: Callable[[], int]
    """The number of instances in memory."""
    loads: bool = True
    """Whether it loads models, and does not only attach to those that a server has."""

    def load(self, context_length: int = LARGE) -> Instance:
        return self.engine.load(self.model, context_length, Ignored())


def _fake(_: ExitStack) -> ModelLoader:
    engine = FakeEngine((StandInModel(key="tiny"),))

    return ModelLoader(
        engine=engine,
        model=Model(id="tiny", engine="fake"),
        missing=Model(id="missing", engine="fake"),
        loaded=lambda: engine.loaded,
    )


def _lmstudio(cleanup: ExitStack) -> ModelLoader:
    from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine

    server = cleanup.enter_context(LmStudioServer([StandInModel(key="tiny")]))
    engine = LmStudioEngine(server.host, load_timeout=60, reply_timeout=60)
    cleanup.callback(engine.close)
    return ModelLoader(
        engine=engine,
        model=Model(id="tiny", engine="lmstudio"),
        missing=Model(id="missing", engine="lmstudio"),
        loaded=lambda: len(server.loaded()),
    )


def _ollama(cleanup: ExitStack) -> ModelLoader:
    from pytest_lmstrix.engines.ollama.engine import OllamaEngine

    server = cleanup.enter_context(OllamaServer([StandInModel(key="tiny")]))
    engine = OllamaEngine(server.host, load_timeout=60, reply_timeout=60)
    cleanup.callback(engine.close)
    return ModelLoader(
        engine=engine,
        model=Model(id="tiny", engine="ollama"),
        missing=Model(id="missing", engine="ollama"),
        loaded=lambda: len(server.loaded),
    )


def _openai(cleanup: ExitStack) -> ModelLoader:
    from pytest_lmstrix.engines.openai.engine import OpenAiEngine

    server = cleanup.enter_context(OpenAiServer(StandInModel(key="tiny"), LARGE))
    engine = OpenAiEngine(server.host, reply_timeout=60)
    cleanup.callback(engine.close)
    return ModelLoader(
        engine=engine,
        model=Model(id="tiny", engine="openai"),
        missing=Model(id="missing", engine="openai"),
        loaded=lambda: 0,
        loads=False,
    )


def _llamacpp(cleanup: ExitStack) -> ModelLoader:
    from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine

    return _child_processes(cleanup, LlamaCppEngine(load_timeout=120, reply_timeout=120))


def _llama_server(cleanup: ExitStack) -> ModelLoader:
    from pytest_lmstrix.engines.llamacpp.own_binary import LlamaServerEngine

    folder = Path(cleanup.enter_context(TemporaryDirectory()))
    program = str(llama_server(folder))
    return _child_processes(
        cleanup, LlamaServerEngine(program, load_timeout=120, reply_timeout=120)
    )


def _child_processes(cleanup: ExitStack, engine: ChildEngine) -> ModelLoader:
    import psutil

    try:
        path = str(weights.smollm2())
    except Failure as failure:
        if failure.verdict is not Verdict.UNREACHABLE:
            raise
        pytest.skip(f"no model at hand: {failure.text}")
    before = {child.pid for child in psutil.Process().children()}

    def loaded() -> int:
        children = psutil.Process().children()
        return sum(child.pid not in before and child.is_running() for child in children)

    cleanup.callback(engine.close)
    return ModelLoader(
        engine=engine,
        model=Model(id="smollm2", engine=engine.name, source=path),
        missing=Model(id="missing", engine=engine.name, source=path + ".not-there"),
        loaded=loaded,
    )


NO_LLAMACPP = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs xllamacpp")


@pytest.fixture(
    scope="module",
    params=[
        _fake,
        _lmstudio,
        _ollama,
        _openai,
        pytest.param(_llamacpp, marks=NO_LLAMACPP),
        pytest.param(_llama_server, marks=NO_LLAMACPP),
    ],
    ids=["fake", "lmstudio", "ollama", "openai", "llamacpp", "llama-server"],
)
def loader(request: pytest.FixtureRequest) -> Iterator[ModelLoader]:
    """An engine; afterwards nothing is loaded in it."""
    with ExitStack() as cleanup:
        loader: ModelLoader = request.param(cleanup)
        yield loader
        assert loader.loaded() == 0


class Shared:
    """An instance for all tests that do not change it; loaded when one asks for it."""

    def __init__(self, loader: ModelLoader) -> None:
        self._loader = loader
        self._instance: Instance | None = None

    def load(self) -> Instance:
        self._instance = self._instance or self._loader.load()
        return self._instance

    def unload(self) -> None:
        if self._instance is not None:
            self._instance.unload()
        self._instance = None


@pytest.fixture(scope="module")
def shared_instance(loader: ModelLoader) -> Iterator[Shared]:
    shared = Shared(loader)
    yield shared
    shared.unload()


@pytest.fixture
def shared(shared_instance: Shared) -> Instance:
    return shared_instance.load()


@pytest.fixture
def unused(loader: ModelLoader, shared_instance: Shared) -> ModelLoader:
    """The engine with nothing loaded: not every engine has two instances of a model."""
    shared_instance.unload()
    return loader


def test_the_requested_context_is_granted(shared: Instance) -> None:
    assert shared.context_length == LARGE


def test_complete_continues_the_prompt(shared: Instance) -> None:
    reply = shared.complete(FEW_SHOT, max_tokens=4)
    assert "5" in reply.text
    assert reply.completion_tokens is not None
    assert 0 < reply.completion_tokens <= 4
    assert reply.prompt_tokens is not None
    assert reply.prompt_tokens >= shared.count_tokens(FEW_SHOT)
    assert reply.ttft_seconds is not None
    assert reply.ttft_seconds > 0


def test_temperature_0_is_deterministic(shared: Instance) -> None:
    first, second = (shared.complete(STORY, max_tokens=6).text for _ in range(2))
    assert first == second != ""


def test_an_exhausted_token_budget_is_the_stop_reason(shared: Instance) -> None:
    assert shared.complete(STORY * 2 + "The miller", max_tokens=2).stop_reason == "length"


def test_chat_replies(shared: Instance) -> None:
    reply = shared.chat([Message(role="user", content="Say hello")], max_tokens=12)
    assert reply.text.strip()
    assert reply.completion_tokens is not None
    assert 0 < reply.completion_tokens <= 12


def test_tokens_are_counted(shared: Instance) -> None:
    one, ten = shared.count_tokens(STORY), shared.count_tokens(STORY * 10)
    assert one > 0
    # Parts may merge at their boundaries, and special tokens may be added to each text.
    assert abs(ten - 10 * one) <= 20


def test_prompt_tokens_count_the_whole_prompt(shared: Instance) -> None:
    prompt = STORY * 20
    reply = shared.complete(prompt, max_tokens=1)
    assert reply.prompt_tokens is not None
    assert 0 <= reply.prompt_tokens - shared.count_tokens(prompt) <= 2


def test_a_prompt_longer_than_the_context_is_an_error(shared: Instance) -> None:
    with pytest.raises(Failure) as failed:
        shared.complete(STORY * 100, max_tokens=1)
    assert failed.value.verdict is Verdict.CONTEXT_TOO_LARGE
    assert "5" in shared.complete(FEW_SHOT, max_tokens=4).text


def test_unload_is_idempotent(unused: ModelLoader) -> None:
    before = unused.loaded()
    instance = unused.load(SMALL)
    assert unused.loaded() == before + unused.loads
    instance.unload()
    instance.unload()
    assert unused.loaded() == before


def test_a_model_can_be_reloaded_at_another_size(unused: ModelLoader) -> None:
    if not unused.loads:
        pytest.skip("a server keeps its context")
    for context_length in (SMALL, LARGE, SMALL):
        instance = unused.load(context_length)
        assert instance.context_length == context_length
        instance.unload()


def test_an_unloaded_instance_raises_a_failure(unused: ModelLoader) -> None:
    instance = unused.load(SMALL)
    instance.unload()
    with pytest.raises(Failure) as failed:
        instance.complete(FEW_SHOT, max_tokens=2)
    assert failed.value.verdict is not Verdict.MODEL_NOT_FOUND


def test_a_missing_model_is_a_failure(unused: ModelLoader) -> None:
    before = unused.loaded()
    with pytest.raises(Failure) as failed:
        unused.engine.load(unused.missing, SMALL, Ignored())
    assert (failed.value.verdict, failed.value.phase) == (Verdict.MODEL_NOT_FOUND, "load")
    assert unused.loaded() == before
