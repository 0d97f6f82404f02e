"""How a failure is displayed."""

from __future__ import annotations

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict


def test_a_failure_states_the_problem_and_a_hint() -> None:
    failure = Failure.from_engine(
        "\x1b[31mcudaMalloc failed: out of memory\x1b[0m\x07 ", exit_status=1
    )
    first, advice = failure.explain().split("\n")
    assert first == "out_of_memory: cudaMalloc failed: out of memory (exit status 1)"
    assert advice == Verdict.OUT_OF_MEMORY.advice


def test_a_failure_keeps_the_full_text_and_displays_a_part() -> None:
    failure = Failure("x" * 100_000, verdict=Verdict.ENGINE_ERROR)
    assert failure.text == "x" * 100_000
    assert len(failure.explain()) < 3_000
    assert "more characters]" in failure.explain()


def test_a_failure_without_text_displays_its_verdict() -> None:
    assert Failure("", verdict=Verdict.WRONG_ANSWER).explain() == "wrong_answer"
