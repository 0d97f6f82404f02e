"""`parallel`: fills at once, each with its own facts, and what each of them gets."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.types import Case, LoadSettings, Model, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.openai.engine import OpenAiEngine
from tests.checks.laboratory import SKIPPED, Run, loader_for
from tests.checks.sizes.scripted import Scripted, run_of
from tests.standin.fake_engine import FakeInstance
from tests.standin.lmstudio import ForgetsMiddle, Gibberish, SharesContext, SharesWindow
from tests.standin.lmstudio.models.behaviours import AnyBehaviour
from tests.standin.lmstudio.models.model import StandInModel
from tests.standin.openai.server import OpenAiServer

SIZE = 4_095


class Recording(Scripted):
    """Keeps the prompts that it was sent."""

    def __init__(self, *behaviours: AnyBehaviour) -> None:
        super().__init__(*behaviours)
        self.prompts: list[str] = []

    def load(self, model: Model, context_length: int, progress: Progress) -> FakeInstance:
        instance = super().load(model, context_length, progress)
        complete = instance.complete

        def recorded(prompt: str, **more: int) -> object:
            self.prompts.append(prompt)
            return complete(prompt, **more)

        instance.complete = recorded  # type: ignore[assignment, method-assign]
        return instance


def check(engine: Scripted, check: str = "deep", *sizes: int, parallel: int = 4) -> list[Result]:
    model = Model(id="tiny", engine="fake", load=LoadSettings(parallel=parallel))
    cases = [Case(model=model, context_length=size) for size in sizes or (SIZE,)]
    found = run_of(engine).check(check, cases)
    assert SKIPPED not in found.values()
    return [results[0] for results in found.values() if results is not SKIPPED]


def test_each_of_the_requests_at_once_has_facts_of_its_own() -> None:
    engine = Recording(SharesWindow(slots=4, windows=4))
    (result,) = check(engine)
    assert result.verdict is Verdict.OK, result.detail
    assert result.granted_context_length == SIZE
    assert result.settings == '{"parallel":4}'
    fills = [prompt for prompt in engine.prompts if len(prompt) > 8_000]
    assert len(fills) == 4 * 5
    assert len({prompt[:200] for prompt in fills}) == 4
    assert len(result.replies) == 4 * 5 * 2  # with those of the controls


@pytest.mark.parametrize(
    ("behaviour", "verdict", "detail"),
    [
        (
            SharesWindow(slots=4),
            Verdict.CONTEXT_TOO_LARGE,
            "4 requests at once do not get 4,095 tokens each: Context size has been exceeded.",
        ),
        (
            SharesWindow(slots=4, cuts=True),
            Verdict.PROMPT_TRUNCATED,
            "4 requests at once get 1,024 of 4,095 tokens each: sent",
        ),
        (
            SharesContext(slots=4, reported=False),
            Verdict.CONTEXT_NOT_GRANTED,
            "4 requests at once get 1,023 of 4,095 tokens each: The number of tokens to keep",
        ),
        (
            SharesContext(slots=4),
            Verdict.CONTEXT_NOT_GRANTED,
            "4 requests at once get 1,023 of 4,095 tokens each",
        ),
        (
            ForgetsMiddle(start=512, end=512),
            Verdict.RECALL_FAILED,
            "4 of 4 requests at once: does not recall what is hidden",
        ),
    ],
)
def test_slots_that_share_a_window_are_found_out(
    behaviour: AnyBehaviour, verdict: Verdict, detail: str
) -> None:
    (result,) = check(Scripted(behaviour))
    assert result.verdict is verdict, result.detail
    assert result.detail.startswith(detail)


def test_a_window_that_is_only_reported_to_be_shared_fails_every_check() -> None:
    (result,) = check(Scripted(SharesContext(slots=4)), "full")
    assert result.verdict is Verdict.CONTEXT_NOT_GRANTED
    assert result.granted_context_length == 1_023


def test_one_load_serves_all_sizes() -> None:
    engine = Scripted()
    results = check(engine, "deep", 1_024, 2_048, SIZE, parallel=2)
    assert {result.verdict for result in results} == {Verdict.OK}
    assert engine.loads == [SIZE]


def test_without_the_setting_requests_are_sent_one_at_a_time() -> None:
    engine = Recording()
    (result,) = check(engine, parallel=1)
    assert result.verdict is Verdict.OK
    assert len(engine.prompts) == 2 * 5


@pytest.mark.parametrize(
    ("windows", "verdict", "detail"),
    [
        (2, Verdict.OK, ""),
        (1, Verdict.CONTEXT_TOO_LARGE, "2 requests at once do not get 2,048 tokens each: Context"),
    ],
)
def test_a_server_that_is_attached_to_gets_as_many_requests_at_once(
    windows: float, verdict: Verdict, detail: str
) -> None:
    served = StandInModel(key="tiny", behaviours=(SharesWindow(slots=2, windows=windows),))
    model = Model(id="tiny", engine="openai", load=LoadSettings(parallel=2))
    with OpenAiServer(served, 2_048) as server:
        run = Run(loader_for(OpenAiEngine(server.host)))
        (result,) = run.check("deep", [Case(model=model, context_length=2_048)])[2_048] or ()
    assert (result.verdict, result.detail[: len(detail)]) == (verdict, detail)
    assert result.settings == '{"parallel":2}'


def test_full_asks_its_questions_in_as_many_requests_at_once() -> None:
    engine = Recording()
    (result,) = check(engine, "full", parallel=3)
    assert result.verdict is Verdict.OK
    assert len(engine.prompts) == len(result.replies) == 3 * 2
    (result,) = check(Scripted(Gibberish(above=1)), "full", parallel=3)
    assert result.verdict is Verdict.WRONG_ANSWER
    assert result.detail.startswith("3 of 3 requests at once: ninety-six in digits: ")
