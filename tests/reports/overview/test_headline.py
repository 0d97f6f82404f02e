"""The headline: how many models work, on what, when."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.reports.overview.headline import headline, standings_sentence
from pytest_lmstrix.reports.overview.standing import Standing, failures_first, standing_of
from pytest_lmstrix.reports.run_json import RunReport
from tests.registry.results import a_result

SENTENCES: list[tuple[dict[Standing, int], str]] = [
    ({}, "No model has been tested"),
    ({"declared": 33, "below": 14, "not_at_all": 8},
     "33 of 55 work at their declared context, 14 below it, 8 not at all"),
    ({"declared": 1, "below": 1}, "1 of 2 works at its declared context, 1 below it"),
    ({"declared": 3}, "All 3 work at their declared context"),
    ({"declared": 1}, "The model works at its declared context"),
    ({"as_tested": 2, "below": 1}, "2 of 3 work as far as tested, 1 below their declared context"),
    ({"not_at_all": 2, "unknown": 1}, "2 of 3 do not work, 1 without a verdict"),
    ({"not_at_all": 1}, "The model does not work"),
]  # fmt: skip


@pytest.mark.parametrize(("counts", "sentence"), SENTENCES)
def test_the_sentence_counts_models_by_how_far_they_work(
    counts: dict[Standing, int], sentence: str
) -> None:
    assert standings_sentence(name for name, n in counts.items() for _ in range(n)) == sentence


BAD = a_result(30_000, "out_of_memory")
STANDINGS: list[tuple[list[Result], Standing]] = [
    ([], "unknown"),
    ([a_result(8_192)], "declared"),
    ([a_result(8_191)], "declared"),
    ([a_result(8_190)], "as_tested"),
    ([a_result(8_192, check="fast")], "as_tested"),
    ([a_result(8_192, check="limit")], "declared"),
    ([a_result(4_096), a_result(8_192, "crashed")], "below"),
    ([a_result(8_192, check="fast"), a_result(8_192, "recall_failed", check="deep")], "below"),
    ([a_result(8_192, "crashed")], "not_at_all"),
    ([a_result(8_192, "corrupted")], "not_at_all"),
    ([a_result(8_192, "unreachable")], "unknown"),
    ([a_result(8_192), a_result(4_096, "wrong_answer", check="test_own")], "declared"),
    ([a_result(8_191, "crashed", origin="search"), a_result(8_192)], "declared"),
]


@pytest.mark.parametrize(("results", "expected"), STANDINGS)
def test_how_far_a_model_works(results: list[Result], expected: Standing) -> None:
    assert standing_of(results, declared=8_192) == expected


def test_what_the_registry_knows_counts_too() -> None:
    fast = [a_result(4_096, check="fast")]
    assert standing_of(fast, declared=8_192, verified=8_192) == "declared"
    assert standing_of(fast, declared=8_192, smallest_bad=6_000) == "below"
    assert standing_of(fast, declared=None) == "as_tested"


def test_facts_name_machine_engines_date_and_duration(run: RunReport) -> None:
    found = headline(run)
    assert found.setting == (
        "machine 0123456789ab; engine lmstudio; 2026-03-02 04:00 UTC; 12 min 30 s"
    )
    assert found.tested == "4 models, 6 tests: 2 passed, 2 failed, 1 xfailed, 1 skipped"


def test_models_that_worked_before_are_first(run: RunReport) -> None:
    order = [model.id for model in failures_first(run)]
    assert order[:2] == ["lost", "llama"]
    assert order[-1] == "tiny"
