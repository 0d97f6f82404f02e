"""`parallel` with real llama.cpp: slots with the whole size each, and slots that share a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("xllamacpp")

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, LoadSettings, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine
from pytest_lmstrix.engines.llamacpp.own_binary import LlamaServerEngine
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from tests.checks.laboratory import NoWatch, Run, loader_for
from tests.engines.llamacpp.test_own_binary import command_of
from tests.standin import weights
from tests.standin.llama_server.program import write_llama_server
from tests.standin.tiny_models import write_tiny_model

SIZE = 512


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[..., LlamaCppInstance]]:
    """Loads a tiny model in a program of llama.cpp, with room for 512 tokens a request."""
    loaded = []

    def load(progress: Progress | None = None, **settings: Any) -> LlamaCppInstance:
        engine = LlamaServerEngine(str(write_llama_server(tmp_path)), reply_timeout=60.0)
        source = str(write_tiny_model(tmp_path / "tiny.gguf"))
        model = Model(
            id="tiny", engine="llama-server", source=source, load=LoadSettings(**settings)
        )
        loaded.append(engine.load(model, SIZE, progress or NoWatch()))
        return loaded[-1]

    yield load
    for instance in loaded:
        instance.unload()


def prompt(instance: LlamaCppInstance, tokens: int) -> str:
    words = "b " * tokens
    each = instance.count_tokens(words) / tokens
    return "b " * int(tokens / each)


def test_a_real_model_recalls_two_fills_at_once() -> None:
    settings = LoadSettings(parallel=2, threads=1)
    source = str(weights.smollm2())
    model = Model(id="smollm2", engine="llamacpp", source=source, load=settings)
    loader = loader_for(LlamaCppEngine())
    try:
        (result,) = Run(loader).check("deep", [Case(model=model, context_length=320)])[320] or ()
    finally:
        loader.unload()
    assert result.verdict is Verdict.OK, result.detail
    assert result.granted_context_length == 512  # each, padded
    assert (result.prompt_tokens or 0) > 0.95 * (320 - 12)


def test_every_slot_has_the_whole_size(load: Callable[..., LlamaCppInstance]) -> None:
    instance = load(parallel=3)
    words = " ".join(command_of(instance))
    assert "--ctx-size 1536 --parallel 3 " in words
    assert instance.context_length == SIZE
    fill = prompt(instance, 480)
    replies = instance.at_once([partial(instance.complete, fill, max_tokens=4)] * 3)
    assert min(reply.prompt_tokens or 0 for reply in replies) > 440


def test_slots_that_share_one_cache_are_found_out(load: Callable[..., LlamaCppInstance]) -> None:
    instance = load(parallel=2, extra_args=("--kv-unified",))
    assert instance.context_length == SIZE
    fill = prompt(instance, 800)  # of the 1,024 tokens of all slots
    # Long answers: the first one must not be over before the second prompt is there.
    asks = [partial(instance.generate, text, max_tokens=200) for text in (fill, "c " + fill)]

    def ask_until_refused() -> None:
        for _ in range(20):  # on a busy machine one may be over before the other begins
            instance.at_once(asks)

    with pytest.raises(Failure) as failed:
        ask_until_refused()
    assert failed.value.verdict is Verdict.CONTEXT_TOO_LARGE


def test_a_server_that_dies_is_one_failure_of_all_requests(
    load: Callable[..., LlamaCppInstance],
) -> None:
    class Killing(NoWatch):
        def prefill(self, done: int, total: int) -> None:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # the other request has killed it
                    if "--model" in process.cmdline():
                        process.kill()

    instance = load(Killing(), parallel=2)
    fill = prompt(instance, 400)
    with pytest.raises(Failure, match=r"llama\.cpp ended") as failed:
        # Long answers, so that the server is killed before they are over.
        instance.at_once([partial(instance.generate, fill, max_tokens=400)] * 2)
    assert failed.value.verdict is Verdict.CRASHED
    assert psutil.Process().children(recursive=True) == []
