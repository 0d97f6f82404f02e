"""The fixtures: those of the built-in checks, and `lmstrix_model` for users' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_lmstrix.bench import Bench, LoadedModel
from pytest_lmstrix.examining import Examiner
from pytest_lmstrix.judging import Judge
from pytest_lmstrix.types import Case, Result
from pytest_lmstrix.verdicts import Failure, Verdict

RunCheck = Callable[[str, Callable[[Examiner, Case], list[Result]]], None]
bench_key = pytest.StashKey[Bench]()
"""The bench of this process, on its config."""
judge_key = pytest.StashKey[Judge]()
"""The judge of this process, on its config."""
examiner_key = pytest.StashKey[Examiner]()
"""The examiner of this process, on its config."""
results_key = pytest.StashKey[list[Result]]()
"""What a test found, on its item: its own result, then those of other sizes it tried."""


@pytest.fixture(scope="session")
def lmstrix_bench(pytestconfig: pytest.Config) -> Iterator[Bench]:
    """Loads and unloads models; at the end of the session nothing stays loaded."""
    bench = pytestconfig.stash[bench_key]
    yield bench
    bench.unload()


@pytest.fixture(scope="session")
def lmstrix_case(request: pytest.FixtureRequest) -> Case:
    """The model and context length of this test; session scope, one value for each case."""
    case: Case = request.param
    return case


@pytest.fixture(scope="session")
def lmstrix_model(
    pytestconfig: pytest.Config, lmstrix_case: Case, lmstrix_bench: Bench
) -> LoadedModel:
    """The model of this test, loaded: one load serves all tests of a model and size.

    It has `model`, `context_length` (granted, tokens), `complete`, `chat` and `count_tokens`.
    Choose models and sizes with `@pytest.mark.lmstrix(match="*llama*", contexts=[8192])`.
    """
    return pytestconfig.stash[judge_key].load(lmstrix_case)


@pytest.fixture
def lmstrix_check(
    request: pytest.FixtureRequest, lmstrix_case: Case, lmstrix_bench: Bench
) -> RunCheck:
    """Runs a built-in check on the case of this test, and raises what it found."""
    examiner = request.config.stash[examiner_key]

    def run(check: str, examine: Callable[[Examiner, Case], list[Result]]) -> None:
        reason = examiner.too_large(check, lmstrix_case)
        if reason is not None:
            pytest.skip(reason)
        results = examine(examiner, lmstrix_case)
        request.node.stash[results_key] = results
        if results[0].verdict is not Verdict.OK:
            raise Failure(results[0].detail, verdict=results[0].verdict)

    return run
