"""The built-in engines pass the published contract of engines."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Closes, Engine, Instance
from pytest_lmstrix.engines.llamacpp.own_binary import LlamaServerEngine
from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine
from pytest_lmstrix.engines.ollama.engine import OllamaEngine
from pytest_lmstrix.engines.openai.engine import OpenAiEngine
from pytest_lmstrix.testing import EngineContract, RecordedProgress
from tests.standin import weights
from tests.standin.fake_engine import FakeEngine
from tests.standin.llama_server.program import llama_server
from tests.standin.lmstudio import LmStudioServer, StandInModel
from tests.standin.ollama import OllamaServer
from tests.standin.openai import Dialect, OpenAiServer

TINY = StandInModel(key="tiny")
VECTORS = StandInModel(key="vectors", type="embedding")


class TestFake(EngineContract):
    model = "tiny"
    embedding = "vectors"

    @classmethod
    def make_engine(cls) -> FakeEngine:
        return FakeEngine((TINY, VECTORS))

    def count_loaded(self, engine: Engine) -> int:
        assert isinstance(engine, FakeEngine)
        return engine.loaded


class TestLmStudio(EngineContract):
    model = "tiny"
    embedding = "vectors"
    server: LmStudioServer

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[LmStudioEngine]:
        with LmStudioServer([TINY, VECTORS]) as cls.server:
            engine = LmStudioEngine(cls.server.host, load_timeout=60, reply_timeout=60)
            yield engine
            engine.close()
            engine.close()

    def count_loaded(self, engine: Engine) -> int:
        return len(self.server.loaded())


class TestOllama(EngineContract):
    model = "tiny"
    embedding = "vectors"
    server: OllamaServer

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[OllamaEngine]:
        with OllamaServer([TINY, VECTORS]) as cls.server:
            engine = OllamaEngine(cls.server.host, load_timeout=60, reply_timeout=60)
            yield engine
            engine.close()
            engine.close()

    def count_loaded(self, engine: Engine) -> int:
        return len(self.server.loaded)


class TestOpenAi(EngineContract):
    model = "tiny"
    dialect = Dialect.VLLM

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[OpenAiEngine]:
        with OpenAiServer(TINY, cls.large, cls.dialect) as server:
            engine = OpenAiEngine(server.host, reply_timeout=60)
            yield engine
            engine.close()
            engine.close()

    @pytest.fixture
    def embedder(self) -> Iterator[Instance]:
        """A model of another server, which has one."""
        with OpenAiServer(VECTORS, self.small, self.dialect) as server:
            engine = OpenAiEngine(server.host, reply_timeout=60)
            model = Model(id="vectors", engine="openai", type="embedding")
            yield engine.load(model, self.small, RecordedProgress())
            engine.close()


class TestOpenAiOfLlamaCpp(TestOpenAi):
    dialect = Dialect.LLAMACPP


class TestOpenAiOfSglang(TestOpenAi):
    dialect = Dialect.SGLANG


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs xllamacpp")
class TestLlamaCpp(EngineContract):
    children: frozenset[int]

    @classmethod
    def make_engine(cls) -> Engine:
        from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine

        return LlamaCppEngine(load_timeout=120, reply_timeout=120)

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        try:
            path = str(weights.smollm2())
        except Failure as failure:
            if failure.verdict is not Verdict.UNREACHABLE:
                raise
            pytest.skip(f"no model at hand: {failure.text}")
        engine = cls.make_engine()
        cls.model = Model(id="smollm2", engine=engine.name, source=path)
        cls.embedding = cls.model
        cls.missing = Model(id="missing", engine=engine.name, source=path + ".not-there")
        cls.children = _children()
        yield engine
        assert isinstance(engine, Closes)
        engine.close()
        engine.close()

    def count_loaded(self, engine: Engine) -> int:
        return len(_children() - self.children)


class TestLlamaServer(TestLlamaCpp):
    path: Path

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def program(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.path = llama_server(tmp_path_factory.mktemp("program"))

    @classmethod
    def make_engine(cls) -> Engine:
        return LlamaServerEngine(str(cls.path), load_timeout=120, reply_timeout=120)


def _children() -> frozenset[int]:
    import psutil

    return frozenset(each.pid for each in psutil.Process().children() if each.is_running())
