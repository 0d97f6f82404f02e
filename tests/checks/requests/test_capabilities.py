"""`capability` on a fleet of known truth, and what it makes of engines that cannot be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest
from msgspec import Struct

from pytest_lmstrix.checks.advice import advice_for
from pytest_lmstrix.core.types import Case, Model, Proof, Result
from pytest_lmstrix.engines.base import Engine, ReportsFacts
from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine
from pytest_lmstrix.engines.ollama.engine import OllamaEngine
from pytest_lmstrix.engines.openai.engine import OpenAiEngine
from pytest_lmstrix.plan.plan import with_facts
from tests.checks.laboratory import Run, loader_for
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio import LmStudioServer, Reasons, Says, StandInModel
from tests.standin.lmstudio.models.behaviours import (
    AnyBehaviour,
    FailsInChat,
    IgnoresSchema,
    SeesStripes,
    ToolFault,
    UsesTools,
)
from tests.standin.ollama import OllamaServer
from tests.standin.openai import Dialect, Faults, OpenAiServer

CONTEXT = 4_096
ALL = ("tools", "vision", "thinking")


class Subject(Struct, frozen=True, kw_only=True):
    """A model, what is declared of it, and what is true."""

    behaviours: tuple[AnyBehaviour, ...] = ()
    declared: tuple[str, ...] = ()
    proofs: dict[str, Proof]
    verdict: str = "ok"
    words: tuple[str, ...] = ()
    """In the detail."""

    def stand_in(self) -> StandInModel:
        """Return the model in a server, whose listing declares the same as far as it can."""
        return StandInModel(
            key="tiny",
            vision="vision" in self.declared,
            trained_for_tool_use="tools" in self.declared,
            behaviours=self.behaviours,
        )


def faulty(fault: ToolFault, words: str) -> Subject:
    return Subject(
        behaviours=(UsesTools(fault=fault),),
        declared=("tools",),
        proofs={"schema": "proven", "tools": "failed"},
        verdict="wrong_answer",
        words=(f"tools: declared, but it does not hold: one call: {words}", "proven: schema"),
    )


PROVEN: dict[str, Proof] = {"schema": "proven", "tools": "proven", "parallel_tools": "proven"}
SEES: dict[str, Proof] = {"vision": "proven"}
FLEET = {
    "able": Subject(
        behaviours=(UsesTools(), SeesStripes()), declared=("tools", "vision"), proofs=PROVEN | SEES
    ),
    "nothing_declared": Subject(
        behaviours=(UsesTools(), SeesStripes()), proofs={"schema": "proven"}
    ),
    "one_call_at_a_time": Subject(
        behaviours=(UsesTools(most=1),),
        declared=("tools",),
        proofs={"schema": "proven", "tools": "proven"},
    ),
    "fenced": faulty("fenced", "fenced: the call is in a code fence"),
    "in_reasoning": faulty("in_reasoning", "in_reasoning: the call is in the reasoning"),
    "wrong_name": faulty("wrong_name", "wrong_name: 'set-heating' is not a tool"),
    "not_an_object": faulty("not_an_object", "not_an_object: the arguments are not"),
    "cut_off": faulty("cut_off", "cut_off: the call ends in the middle"),
    "no_call": faulty("none", "no tool was called, got 'I have done that.'"),
    "eager": Subject(
        behaviours=(UsesTools(eager=True),),
        declared=("tools",),
        proofs={"schema": "proven", "tools": "failed"},
        verdict="wrong_answer",
        words=("no call where no tool fits: got play_music {'artist': 'Paris'}",),
    ),
    "blind": Subject(
        declared=("vision",),
        proofs={"schema": "proven", "vision": "failed"},
        verdict="wrong_answer",
        words=("vision: declared, but it does not hold: description of a picture: got 'I see 1",),
    ),
    "without_grammar": Subject(
        behaviours=(IgnoresSchema(),),
        proofs={"schema": "failed"},
        verdict="wrong_answer",
        words=("schema: declared, but it does not hold: JSON by a schema: the answer does not",),
    ),
    "too_weak": Subject(
        behaviours=(Says(text="No idea."),),
        declared=("tools", "vision"),
        proofs={"schema": "proven", "tools": "inconclusive", "vision": "inconclusive"},
        verdict="inconclusive",
        words=("tools: not judged: it is too weak, for it fails the easy 'degrees in digits' too",),
    ),
}


@contextmanager
def lmstudio(model: StandInModel) -> Iterator[Engine]:
    with LmStudioServer([model], version="0.4.12") as server, ExitStack() as cleanup:
        engine = LmStudioEngine(server.host, load_timeout=60, reply_timeout=60)
        cleanup.callback(engine.close)
        yield engine


@contextmanager
def ollama(model: StandInModel) -> Iterator[Engine]:
    with OllamaServer([model]) as server, ExitStack() as cleanup:
        engine = OllamaEngine(server.host, load_timeout=60, reply_timeout=60)
        cleanup.callback(engine.close)
        yield engine


@contextmanager
def openai(
    model: StandInModel, dialect: Dialect = Dialect.VLLM, faults: Faults | None = None
) -> Iterator[Engine]:
    with OpenAiServer(model, CONTEXT, dialect, faults) as server, ExitStack() as cleanup:
        engine = OpenAiEngine(server.host, reply_timeout=60)
        cleanup.callback(engine.close)
        yield engine


def judged(engine: Engine, declared: tuple[str, ...] = (), size: int = CONTEXT) -> Result:
    """Return the result of a model that the engine and the manifest declare capabilities of."""
    loader = loader_for(engine)
    model = Model(id="tiny", engine=engine.name, capabilities=declared)
    facts = engine.facts(model) if isinstance(engine, ReportsFacts) else None
    try:
        case = Case(model=with_facts(model, facts), context_length=size)
        (result,) = Run(loader).size_policy.run("capability", case)
    finally:
        loader.unload()
    return result


Start = Callable[[StandInModel], AbstractContextManager[Engine]]
ON_EVERY_ENGINE = ("one_call_at_a_time", "cut_off", "too_weak")
OTHERS = [
    pytest.param(name, start, marks=() if name in ON_EVERY_ENGINE else pytest.mark.long)
    for name in FLEET
    for start in (openai, lmstudio)
    if start is openai or name not in ("able", "blind")  # the stand-in keeps no files
]


@pytest.mark.parametrize(("name", "start"), [*((name, ollama) for name in FLEET), *OTHERS])
def test_a_fleet_of_known_truth(name: str, start: Start) -> None:
    subject = FLEET[name]
    declared = subject.declared if start is openai else ()  # others have a listing
    with start(subject.stand_in()) as engine:
        result = judged(engine, declared)
    assert (result.verdict, result.capabilities) == (subject.verdict, subject.proofs)
    for words in subject.words:
        assert words in result.detail
    one_by_one = any("not several calls in one reply" in note for note in result.notes)
    assert one_by_one == (name == "one_call_at_a_time")
    assert ("Update the engine" in advice_for(result)) == (result.outcome == "failed")


THINKING = {
    "thinks": (Reasons(tokens=20), "proven", ""),
    "never_thinks": (Reasons(tokens=0), "failed", "thinking switched on: it does not think, got"),
}


@pytest.mark.parametrize("name", THINKING)
def test_thinking_is_switched(name: str) -> None:
    behaviour, proof, words = THINKING[name]
    with ollama(StandInModel(key="tiny", behaviours=(behaviour,))) as engine:
        result = judged(engine)
    assert result.capabilities == {"schema": "proven", "thinking": proof}
    assert words in result.detail


def test_what_llamacpp_claims_after_a_load_is_declared() -> None:
    one_call = StandInModel(
        key="tiny", trained_for_tool_use=True, behaviours=(UsesTools(most=1),), vision=True
    )
    with openai(one_call, Dialect.LLAMACPP) as engine:
        result = judged(engine)
    assert result.capabilities == {
        "schema": "proven",
        "tools": "proven",
        "parallel_tools": "failed",  # its template claims it
        "vision": "failed",
    }
    assert "two calls in one reply: wanted set_heating" in result.detail


def test_thinking_that_cannot_be_switched_off_does_not_hold() -> None:
    for can_refrain, verdict in ((True, "ok"), (False, "wrong_answer")):
        model = StandInModel(key="tiny", behaviours=(Reasons(tokens=20, can_refrain=can_refrain),))
        with lmstudio(model) as engine:
            result = judged(engine, ("thinking",))
        assert result.verdict == verdict
        assert can_refrain or "thinking switched off: it still thinks" in result.detail


def test_what_the_server_refuses_does_not_hold() -> None:
    faults = Faults(refuses=("tools", "response_format"), refuses_images=True)
    model = StandInModel(key="tiny", behaviours=(UsesTools(), SeesStripes()))
    with openai(model, faults=faults) as engine:
        result = judged(engine, ("tools", "vision"))
    assert result.verdict == "wrong_answer"
    assert result.capabilities == {"tools": "failed", "vision": "failed"}
    assert "one call: refused: tools is not supported by this server" in result.detail


def test_an_engine_that_cannot_be_asked_judges_nothing() -> None:
    result = judged(FakeEngine(), ALL)
    assert result.verdict == "inconclusive"
    assert result.capabilities == dict.fromkeys(ALL, "inconclusive")
    assert "vision: not judged: engine 'fake' takes no images in chat" in result.detail
    result = judged(FakeEngine())
    assert (result.verdict, result.capabilities) == ("inconclusive", None)
    assert "Add to `capabilities` in the manifest" in advice_for(result)


def test_a_model_without_a_chat_template_is_not_judged() -> None:
    broken = FailsInChat(text="Error rendering prompt with jinja template: unknown filter")
    with openai(StandInModel(key="tiny", behaviours=(broken,))) as engine:
        result = judged(engine, ("tools",))
    assert result.verdict == "inconclusive"
    assert "tools: not judged: it answers no chat at all (" in result.detail


def test_a_context_that_is_too_small_is_said() -> None:
    with ollama(StandInModel(key="tiny")) as engine:
        result = judged(engine, size=512)
    assert result.verdict == "inconclusive"
    assert result.detail == "a context of 512 tokens is too small: 2,048 are needed"
