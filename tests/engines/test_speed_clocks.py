"""Every built-in engine measures the speed of a model, by the best clock that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec

import pytest

from pytest_lmstrix.core.types import Case, LoadSettings, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Engine
from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine
from pytest_lmstrix.engines.ollama.engine import OllamaEngine
from pytest_lmstrix.engines.openai.engine import OpenAiEngine
from pytest_lmstrix.probes.speed_text import amounts_of
from tests.checks.laboratory import Run, loader_for
from tests.standin import weights
from tests.standin.lmstudio import LmStudioServer, StandInModel
from tests.standin.ollama import OllamaServer
from tests.standin.openai import OpenAiServer
from tests.standin.openai.quirks import Faults

SIZE = 1024
SMALLEST = 300
"""A context with room for a rate, and for no fill."""
CLOCKS = {
    "lmstudio": ("ttft", "engine"),  # it reports no time of a prefill
    "openai": ("ttft", "stream"),
}
TINY = StandInModel(key="tiny")


def _lmstudio(cleanup: ExitStack) -> Engine:
    return LmStudioEngine(cleanup.enter_context(LmStudioServer([TINY])).host)


def _ollama(cleanup: ExitStack) -> Engine:
    return OllamaEngine(cleanup.enter_context(OllamaServer([TINY])).host)


def _openai(cleanup: ExitStack) -> Engine:
    model = StandInModel(key="tiny", decode_tokens_per_second=1_000)
    server = OpenAiServer(model, SIZE, faults=Faults(paced=True))  # timed by its stream alone
    return OpenAiEngine(cleanup.enter_context(server).host)


def _llamacpp(cleanup: ExitStack) -> Engine:
    if find_spec("xllamacpp") is None:
        pytest.skip("needs xllamacpp")
    from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine

    return LlamaCppEngine()


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(
    ("make", "size"),
    [
        pytest.param(_lmstudio, SIZE, id="lmstudio"),
        pytest.param(_ollama, SIZE, id="ollama"),
        pytest.param(_openai, SIZE, id="openai"),
        pytest.param(_llamacpp, SMALLEST, id="llamacpp"),
        pytest.param(_llamacpp, SIZE, id="llamacpp filled", marks=pytest.mark.long),
    ],
)
def test_speed_is_measured_by_the_clock_of_the_engine(
    cleanup: ExitStack, make: Callable[[ExitStack], Engine], size: int
) -> None:
    engine = make(cleanup)
    asked = amounts_of(size)
    model = Model(id="tiny", engine=engine.name)
    if engine.name == "llamacpp":  # several threads are very slow on a busy machine
        source, load = str(weights.smollm2()), LoadSettings(threads=1)
        model = Model(id="smollm2", engine="llamacpp", source=source, load=load)
    loader = loader_for(engine)
    (result,) = Run(loader).check("speed", [Case(model=model, context_length=size)])[size] or ()
    loader.unload()
    assert (result.verdict, result.detail) == (Verdict.OK, "")
    assert result.prefill_tokens_per_second
    assert result.decode_tokens_per_second
    assert result.prefill_tokens == pytest.approx(asked.prefill, rel=0.15)
    assert 64 <= (result.decode_tokens or 0) <= asked.decode
    speed = result.speed
    assert speed is not None
    assert asked.fill - 32 <= speed.depth <= asked.fill
    clocks = speed.prefill_clock, speed.decode_clock
    assert clocks == CLOCKS.get(engine.name, ("engine", "engine"))
    for spread in (speed.prefill_spread, speed.decode_spread, speed.empty_prefill_spread):
        assert spread is not None
        assert 0 < spread[0] <= spread[1]
