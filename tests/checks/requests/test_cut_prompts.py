"""Prompts of users' tests that an engine cuts without an error."""

from __future__ import annotations

import pytest

from pytest_lmstrix.checks.attempt import Attempts
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, Model
from pytest_lmstrix.core.verdicts import Verdict
from tests.checks.laboratory import loader_for
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio.models.behaviours import AnyBehaviour, CutsPrompt
from tests.standin.lmstudio.models.model import StandInModel

SIZE = 4_096
ASKED = "\n4 + 4 = 8\n2 + 3 ="


def loaded(*behaviours: AnyBehaviour) -> LoadedModel:
    model = StandInModel(key="tiny", behaviours=behaviours)
    attempts = Attempts(loader_for(FakeEngine((model,))), run="run", machine="machine")
    return attempts.load(Case(model=Model(id="tiny", engine="fake"), context_length=SIZE))


@pytest.mark.parametrize("fill", [0.9, None])
def test_a_cut_prompt_is_no_answer_though_the_question_is_left(fill: float | None) -> None:
    cutting = loaded(CutsPrompt(tokens=2_000))
    own = "" if fill else "The miller went down to the river. " * 350
    with pytest.raises(Failure, match="2,001 arrived: the engine cut the prompt") as failed:
        cutting.complete(own + ASKED, max_tokens=4, fill=fill)
    assert failed.value.verdict is Verdict.PROMPT_TRUNCATED
    with pytest.raises(Failure, match="the engine cut the prompt"):
        cutting.chat(own + ASKED, max_tokens=4, fill=fill)
    assert "5" in cutting.complete(ASKED, max_tokens=4).text


@pytest.mark.parametrize("fill", [0.9, None])
def test_a_whole_prompt_is_answered(fill: float | None) -> None:
    own = "" if fill else "The miller went down to the river. " * 350
    assert "5" in loaded().complete(own + ASKED, max_tokens=4, fill=fill).text
