"""Each host trouble of the field in a run of several models: none of them is held to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lmstrix.core.types import Case, Model, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.fold import Fold
from tests import core
from tests.checks.laboratory import Run, loader_for
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio import StandInModel
from tests.standin.lmstudio.models.behaviours import AnyBehaviour, FailsInChat, FailsToLoad

WORDS = Path(next(iter(core.__path__)), "field_errors.tsv").read_text(encoding="utf-8")
OF_HOSTS = [
    message.replace(r"\n", "\n")
    for message, verdict in (line.split("\t") for line in WORDS.splitlines()[1:])
    if Verdict(verdict).subject == "host"
]
NAMES = ("alpha", "beta", "gamma", "delta")


def results_of(models: dict[str, tuple[AnyBehaviour, ...]]) -> list[Result]:
    """Run `full` of chat models in order, and return what is recorded."""
    engine = FakeEngine([StandInModel(key=key, behaviours=how) for key, how in models.items()])
    loader = loader_for(engine)
    run = Run(loader)
    found: list[Result] = []
    for key in models:
        model = Model(id=key, engine="fake", context_limit=131_072, prompts="chat")
        if loader.unreachable_reason(model) is None:
            [results] = run.check("full", [Case(model=model, context_length=30_000)]).values()
            found += results or []
            found += run.attempts.take_withdrawn()
    assert engine.loaded <= 1
    return found


@pytest.mark.parametrize("kind", [FailsToLoad, FailsInChat])
def test_no_model_is_held_to_what_its_host_does_to_all_of_them(
    kind: type[FailsToLoad] | type[FailsInChat],
) -> None:
    for text in OF_HOSTS:
        fold = Fold()
        for result in results_of(dict.fromkeys(NAMES, (kind(text=text),))):
            assert result.verdict.subject == "host", text
            fold.add(result)
        known = [status for name in NAMES if (status := fold.status(name)) is not None]
        assert {status.status for status in known} == {"untested"}, text


@pytest.mark.parametrize("kind", [FailsToLoad, FailsInChat])
def test_what_a_host_does_to_one_model_keeps_no_other_from_its_verdict(
    kind: type[FailsToLoad] | type[FailsInChat],
) -> None:
    for text in OF_HOSTS:
        results = results_of({"alpha": (), "beta": (kind(text=text),), "gamma": ()})
        verdicts = [result.verdict for result in results]
        assert (verdicts[0], verdicts[-1]) == (Verdict.OK, Verdict.OK), text
        assert [each.subject for each in verdicts[1:-1]] == ["host"], text
