"""`speed` on every built-in engine: by which clock it is measured, and past an end of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, LoadSettings, Model, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Engine
from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine
from pytest_lmstrix.engines.ollama.engine import OllamaEngine
from pytest_lmstrix.engines.openai.engine import OpenAiEngine
from pytest_lmstrix.probes.speed_text import DECODE_TOKENS, amounts_of
from tests.checks.laboratory import Run, loader_for
from tests.standin import weights
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio import LmStudioServer, StandInModel
from tests.standin.ollama import OllamaServer
from tests.standin.openai import Dialect, OpenAiServer
from tests.standin.openai.quirks import Faults

SIZE = 1_024
SMALLEST = 300
"""A context with room for a rate, and for no fill."""


class Measurable(Struct, frozen=True):
    """An engine, its model and the clocks of prefill and decode."""

    engine: Engine
    model: Model
    clocks: tuple[str, str]
    size: int = SIZE


def _fake(_: ExitStack) -> Measurable:
    return Measurable(FakeEngine(), Model(id="tiny", engine="fake"), ("engine", "engine"))


def _lmstudio(cleanup: ExitStack) -> Measurable:
    server = cleanup.enter_context(LmStudioServer([StandInModel(key="tiny")]))
    engine = LmStudioEngine(server.host, load_timeout=60, reply_timeout=60)
    cleanup.callback(engine.close)
    # LM Studio reports no time of a prefill.
    return Measurable(engine, Model(id="tiny", engine="lmstudio"), ("ttft", "engine"))


def _ollama(cleanup: ExitStack) -> Measurable:
    server = cleanup.enter_context(OllamaServer([StandInModel(key="tiny")]))
    engine = OllamaEngine(server.host, load_timeout=60, reply_timeout=60)
    cleanup.callback(engine.close)
    return Measurable(engine, Model(id="tiny", engine="ollama"), ("engine", "engine"))


def _openai(cleanup: ExitStack, dialect: Dialect = Dialect.VLLM, **faults: bool) -> Measurable:
    model = StandInModel(key="tiny", decode_tokens_per_second=1_000)
    server = OpenAiServer(model, SIZE, dialect, Faults(paced=True, **faults))
    engine = OpenAiEngine(cleanup.enter_context(server).host, reply_timeout=60)
    cleanup.callback(engine.close)
    clocks = ("engine", "engine") if dialect is Dialect.LLAMACPP else ("ttft", "stream")
    return Measurable(engine, Model(id="tiny", engine="openai"), clocks)


def _refuses_ignore_eos(cleanup: ExitStack) -> Measurable:
    return _openai(cleanup, refuses_ignore_eos=True)


def _of_llamacpp(cleanup: ExitStack) -> Measurable:
    return _openai(cleanup, Dialect.LLAMACPP)


def _only_chats(cleanup: ExitStack) -> Measurable:
    return _openai(cleanup, no_completions=True)


def _llamacpp(cleanup: ExitStack) -> Measurable:
    pytest.importorskip("xllamacpp")
    from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine

    try:
        path = str(weights.smollm2())
    except Failure as failure:
        if failure.verdict is not Verdict.UNREACHABLE:
            raise
        pytest.skip(f"no model at hand: {failure.text}")
    engine = LlamaCppEngine(load_timeout=120, reply_timeout=120)
    cleanup.callback(engine.close)
    # Several threads are very slow on a busy machine.
    settings = LoadSettings(threads=1)
    model = Model(id="smollm2", engine="llamacpp", source=path, load=settings)
    return Measurable(engine, model, ("engine", "engine"), SMALLEST)


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def measured(given: Measurable) -> Result:
    loader = loader_for(given.engine)
    case = Case(model=given.model, context_length=given.size)
    (result,) = Run(loader).check("speed", [case])[given.size] or ()
    loader.unload()
    return result


@pytest.mark.parametrize(
    "make",
    [_fake, _lmstudio, _ollama, _openai, _refuses_ignore_eos, _of_llamacpp, _only_chats, _llamacpp],
)
def test_speed_is_measured_by_the_clock_of_the_engine(
    cleanup: ExitStack, make: Callable[[ExitStack], Measurable]
) -> None:
    given = make(cleanup)
    result = measured(given)
    assert (result.verdict, result.detail) == (Verdict.OK, "")
    asked = amounts_of(given.size)
    assert result.prefill_tokens_per_second
    assert result.decode_tokens_per_second
    assert result.prefill_tokens == pytest.approx(asked.prefill, rel=0.15)
    assert 64 <= (result.decode_tokens or 0) <= asked.decode
    speed = result.speed
    assert speed is not None
    assert asked.fill - 32 <= speed.depth <= asked.fill
    assert (speed.prefill_clock, speed.decode_clock) == given.clocks
    for spread in (speed.prefill_spread, speed.decode_spread, speed.empty_prefill_spread):
        assert spread is not None
        assert 0 < spread[0] <= spread[1]


def test_a_server_that_can_decodes_past_an_end_of_text(cleanup: ExitStack) -> None:
    assert measured(_openai(cleanup)).decode_tokens == DECODE_TOKENS
