"""Engines of both kinds: the embedded llama.cpp, and the user's program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import psutil
import pytest

from pytest_lmstrix.engines.llamacpp.engine import ChildEngine, LlamaCppEngine
from pytest_lmstrix.engines.llamacpp.own_binary import LlamaServerEngine
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from tests.engines.llamacpp.child_process.loads import PATIENCE, ModelLoader
from tests.standin.llama_server.program import llama_server


@pytest.fixture(scope="package", params=["llamacpp", "llama-server"])
def start(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., ChildEngine]:
    """Makes an engine: the embedded one, or one with the user's program."""
    if request.param == "llamacpp":
        return LlamaCppEngine
    return partial(LlamaServerEngine, str(llama_server(tmp_path_factory.mktemp("bin"))))


@pytest.fixture(scope="package")
def shared(start: Callable[..., ChildEngine]) -> Iterator[LlamaCppInstance]:
    """An instance of 2,048 tokens shared by tests that do not change it."""
    instance = ModelLoader(start(), frozenset(), start).load(2048)
    yield instance
    instance.unload()


@pytest.fixture
def loader(shared: LlamaCppInstance, start: Callable[..., ChildEngine]) -> Iterator[ModelLoader]:
    """A new engine; afterwards none of its processes is left."""
    known = frozenset(psutil.Process().children(recursive=True))
    loader = ModelLoader(start(load_timeout=PATIENCE, reply_timeout=PATIENCE), known, start)
    yield loader
    assert loader.processes() == []
