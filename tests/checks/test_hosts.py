"""The same words from several models in a row are the host's, and nothing else is."""

from __future__ import annotations

import pytest

from pytest_lmstrix.checks.hosts import HostRows, same_words
from pytest_lmstrix.core.types import Case, Model, Result
from pytest_lmstrix.core.verdicts import Verdict
from tests.checks.laboratory import SKIPPED, Run, loader_of
from tests.registry.results import a_result
from tests.standin.lmstudio import LmStudioServer, StandInModel


def failed(model: str, detail: str, verdict: str = "engine_error", host: str = "h") -> Result:
    return a_result(verdict=verdict, model=model, detail=detail, host=host)


def judged(*results: Result) -> list[Verdict]:
    rows = HostRows()
    return [rows.add(each, worked=each.verdict is Verdict.OK).verdict for each in results]


def test_words_are_the_same_whatever_the_model_path_and_numbers() -> None:
    one = same_words("Failed to load pub/one from /models/pub/one.gguf: code 12,345", "pub/one")
    other = same_words("failed to load two  from C:\\x\\two.gguf: code 7", "two")
    assert one == other == "failed to load model from path: code #"


@pytest.mark.parametrize(
    "names",
    [
        ("PRE32ZZ/jCnkhsg0CoAX0CuI", "05ojjodwMEcYta2ebJ+aEDEu"),
        ("3f2a9c1e-ab12-4c1d-9e2f-01ab23cd77aa", "9b1dee00-0a9f-4fff-8cd1-77aa01ab23cd"),
    ],
)
def test_a_name_that_is_made_up_for_each_load_is_no_difference(names: tuple[str, str]) -> None:
    said = {same_words(f"llama-server for {name} exited: exitCode=1", "m") for name in names}
    assert said == {"llama-server for # exited: exitcode=#"}


def test_the_class_of_a_model_is_a_difference() -> None:
    classes = ("Qwen3MoeForCausalLM", "Llama4ForConditionalGeneration")
    assert len({same_words(f"no layer in {each}", "m") for each in classes}) == 2


def test_three_models_with_the_same_words_are_the_hosts_trouble() -> None:
    rows = HostRows()
    models = ["a", "b", "c"]
    found = [rows.add(failed(each, f"cannot start {each}"), worked=False) for each in models]
    assert [each.verdict for each in found] == ["engine_error", "engine_error", "host_trouble"]
    assert found[-1].outcome == "error"
    assert "3 models in a row (a, b, c): nothing counts against them" in found[-1].detail
    assert found[-1].detail.startswith("cannot start c\n")
    withdrawn = rows.take_withdrawn()
    assert [(each.model, each.verdict) for each in withdrawn] == [
        ("a", "host_trouble"),
        ("b", "host_trouble"),
    ]
    assert rows.take_withdrawn() == []


def test_what_the_hosts_own_words_said_stays_the_hosts() -> None:
    assert judged(*(failed(each, "x", "host_trouble") for each in "abc")) == ["host_trouble"] * 3


@pytest.mark.parametrize(
    "third",
    [
        failed("c", "other words"),
        failed("b", "no engine"),
        failed("c", "no engine", host="other"),
        failed("c", "no engine", "out_of_memory"),
        failed("c", "no engine", "corrupted"),
        failed("c", "no engine", "unsupported"),
    ],
    ids=["other words", "the same model", "another host", "memory", "a file", "an architecture"],
)
def test_what_differs_is_no_row(third: Result) -> None:
    first = [failed(each, "no engine") for each in "ab"]
    assert judged(*first, third)[-1] is third.verdict


@pytest.mark.parametrize("verdict", ["ok", "wrong_answer", "out_of_memory"])
def test_what_works_between_ends_a_row(verdict: str) -> None:
    between = failed("x", "", verdict)
    results = [failed("a", "e"), failed("b", "e"), between, failed("c", "e")]
    assert judged(*results)[-1] is Verdict.ENGINE_ERROR


@pytest.mark.parametrize("verdict", ["model_not_found", "corrupted", "unsupported"])
def test_a_model_that_never_reached_the_engine_does_not_end_a_row(verdict: str) -> None:
    results = [failed("a", "e"), failed("b", "e"), failed("x", "gone", verdict), failed("c", "e")]
    assert judged(*results)[-1] is Verdict.HOST_TROUBLE


def test_failures_without_words_are_no_row() -> None:
    assert judged(*(failed(each, "") for each in "abc")) == ["engine_error"] * 3


def test_an_answer_that_is_stopped_twice_shows_nothing_about_a_size() -> None:
    model = StandInModel(key="tiny", stats={"stopReason": "userStopped"})
    with LmStudioServer([model]) as server, loader_of(server) as loader:
        case = Case(model=Model(id="tiny", engine="lmstudio"), context_length=30_000)
        results = Run(loader).check("full", [case])[30_000]
        assert results is not SKIPPED
        assert [(each.verdict, each.retried) for each in results] == [("host_trouble", True)]
        assert [load.context_length for load in server.loads()] == [30_000, 30_000]
