"""Each behaviour has its stated capacity, alone and combined."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.standin.lmstudio import (
    Corrupted,
    Crashes,
    CrashesAbove,
    CutsPrompt,
    Echoes,
    ForgetsMiddle,
    Gibberish,
    GrantsAtMost,
    GrantsMore,
    Guardrail,
    OutOfMemory,
    Reasons,
    Says,
    SeesLast,
    SlowDecode,
    StandInModel,
    Unsupported,
)
from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.models import brain
from tests.standin.lmstudio.models.behaviours import AnyBehaviour, Load
from tests.standin.lmstudio.models.minds import Message, Prediction, Request, StandInMind

MAX = 2_000
ANSWER_ROOM = 12
SENTENCE = "Rain fell on the roof all day. "


def ask(
    mind: StandInMind, prompt: str, *, chat: bool = False, attempt: int = 2, budget: int | None = 12
) -> Prediction:
    """Predict without a server."""
    request = Request(
        messages=(Message(role="user", text=prompt),),
        chat=chat,
        max_tokens=budget,
        temperature=0.0,
        overflow_policy="stopAtLimit",
        stop_strings=(),
        attempt=attempt,
    )
    return mind.predict(request)


def text(prediction: Prediction) -> str:
    return "".join(piece for piece, _ in prediction.pieces)


def filled(context_length: int) -> str:
    """A prompt that fills the context, with facts at the beginning and in the middle."""
    facts = "The key is 48213. {0}The door is orange. {0}"
    frame = brain.count_tokens(facts.format("")) + brain.count_tokens("The door is") + 1
    return facts.format("rain " * ((context_length - ANSWER_ROOM - frame) // 2))


def passes(model: StandInModel, check: Literal["full", "deep"], context_length: int) -> bool:
    """Perform a correct check of this kind."""
    granted = model.grant(context_length)
    load = Load(context_length=context_length, needed_bytes=1, attempt=2)
    mind = StandInMind(model, granted)
    if not context_length <= granted <= -(-context_length // 256) * 256:
        return False
    try:
        for behaviour in model.behaviours:
            behaviour.check_load(load)
        if check == "full":
            return text(ask(mind, "1+1=2\n2+3=")) == "5"
        prompt = filled(context_length)
        key = ask(mind, prompt + "The key is")
        whole = key.prompt_tokens == key.sent_tokens
        door = ask(mind, prompt + "The door is")
        return whole and text(key) == " 48213." and text(door) == " orange."
    except Refused:
        return False


sizes = st.integers(300, MAX - 300)
limiting = st.one_of(
    sizes.map(lambda n: SeesLast(tokens=n)),
    sizes.map(lambda n: ForgetsMiddle(start=n // 2, end=n - n // 2)),
    sizes.map(lambda n: CutsPrompt(tokens=n)),
    sizes.map(lambda n: GrantsAtMost(tokens=n)),
    sizes.map(lambda n: Gibberish(above=n)),
    sizes.map(lambda n: Gibberish(above=n, measure="filled")),
    sizes.map(lambda n: OutOfMemory(above=n)),
    sizes.map(lambda n: OutOfMemory(above=n, at="predict")),
    sizes.map(lambda n: Guardrail(above=n)),
    sizes.map(lambda n: CrashesAbove(above=n)),
    sizes.map(lambda n: CrashesAbove(above=n, at="predict")),
    st.just(GrantsMore(multiple_of=256)),
    st.just(Crashes()),
    st.just(SlowDecode(above=400)),
)


@pytest.mark.parametrize("check", ["full", "deep"])
@settings(deadline=None)
@given(behaviours=st.lists(limiting, max_size=3).map(tuple))
def test_a_model_works_up_to_its_capacity_and_not_above(
    check: Literal["full", "deep"], behaviours: tuple[AnyBehaviour, ...]
) -> None:
    model = StandInModel(key="m", max_context_length=MAX, behaviours=behaviours)
    capacity = model.capacity(check)
    assert passes(model, check, capacity)
    if capacity < MAX:
        # The prompt ends a little below the context length, and facts have a length.
        assert not passes(model, check, capacity + 1 if check == "full" else capacity + 40)


@pytest.mark.parametrize(
    "behaviour",
    [
        Corrupted(),
        Corrupted(at="load"),
        Unsupported(),
        Says(text=""),
        Echoes(),
    ],
    ids=str,
)
def test_some_models_fail_at_every_size(behaviour: AnyBehaviour) -> None:
    model = StandInModel(key="m", behaviours=(behaviour,))
    assert model.capacity("full") == 0
    assert not passes(model, "full", 512)


def test_a_model_that_crashes_once_works_afterwards() -> None:
    model = StandInModel(key="m", behaviours=(Crashes(at="predict"),))
    mind = StandInMind(model, 4096)
    with pytest.raises(Refused, match="crashed without additional information") as crash:
        ask(mind, "2+3=", attempt=1)
    assert crash.value.fatal
    assert text(ask(mind, "2+3=", attempt=2)) == "5"


def test_reasoning_uses_the_token_budget() -> None:
    mind = StandInMind(StandInModel(key="m", behaviours=(Reasons(tokens=20),)), 4096)
    short = ask(mind, "2+3=", chat=True)
    assert (short.stop_reason, short.predicted_tokens) == ("maxPredictedTokensReached", 12)
    assert {kind for _, kind in short.pieces} == {"reasoningStartTag", "reasoning"}
    long = ask(mind, "2+3=", chat=True, budget=100)
    assert long.pieces[-1] == ("5", "none")
    assert text(ask(mind, "2+3=")) == "5"


def test_the_cache_holds_the_last_prompt() -> None:
    mind = StandInMind(StandInModel(key="m", prefill_tokens_per_second=100.0), 4096)
    first = ask(mind, SENTENCE * 100 + "The key is")
    again = ask(mind, SENTENCE * 100 + "The door is")
    assert first.cached_tokens == 0
    assert again.cached_tokens > brain.count_tokens(SENTENCE * 99)
    assert again.prompt_tokens == first.prompt_tokens
    assert first.prompt_tokens is not None
    assert first.ttft_seconds == first.prompt_tokens / 100.0
    assert again.ttft_seconds == (first.prompt_tokens - again.cached_tokens) / 100.0


def test_decoding_is_slow_above_a_size() -> None:
    model = StandInModel(key="m", behaviours=(SlowDecode(above=1000, tokens_per_second=0.5),))
    assert ask(StandInMind(model, 1000), "2+3=").tokens_per_second == 50.0
    assert ask(StandInMind(model, 1001), "2+3=").tokens_per_second == 0.5


def test_a_reply_stops_at_the_context_limit() -> None:
    mind = StandInMind(StandInModel(key="m", bos_tokens=0), 8)
    reply = ask(mind, "It is a b c", budget=None)
    assert (reply.predicted_tokens, reply.stop_reason) == (3, "contextLengthReached")


def test_a_full_context_is_refused() -> None:
    mind = StandInMind(StandInModel(key="m", bos_tokens=0), 8)
    with pytest.raises(Refused, match=r"n_keep: 8 >= n_ctx: 8"):
        ask(mind, "a b c d e f g h")
