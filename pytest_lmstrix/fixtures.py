"""The fixtures, and how a finding becomes pytest's outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_lmstrix.bench import Bench, LoadedModel
from pytest_lmstrix.judging import Judge, Probe, context_refusal
from pytest_lmstrix.types import Case, Result
from pytest_lmstrix.verdicts import Failure

RunCheck = Callable[[str, Probe], None]
judge_key = pytest.StashKey[Judge]()
"""The judge of this process, on its config."""
results_key = pytest.StashKey[list[Result]]()
"""What a test found, on its item."""


@pytest.fixture(scope="session")
def lmstrix_bench(pytestconfig: pytest.Config) -> Iterator[Bench]:
    """Loads and unloads models; at the end of the session nothing stays loaded."""
    bench = pytestconfig.stash[judge_key].bench
    yield bench
    bench.unload()


@pytest.fixture(scope="session")
def lmstrix_case(request: pytest.FixtureRequest) -> Case:
    """The model and context length of this test; session scope, one value for each case."""
    case: Case = request.param
    return case


@pytest.fixture(scope="session")
def lmstrix_model(lmstrix_case: Case, lmstrix_bench: Bench) -> LoadedModel:
    """The model of this test, loaded: one load serves all tests of a model and size.

    It has `model`, `context_length` (granted, tokens), `complete`, `chat` and `count_tokens`.
    Choose models and sizes with `@pytest.mark.lmstrix(match="*llama*", contexts=[8192])`.
    """
    loaded = lmstrix_bench.load(lmstrix_case.model, lmstrix_case.context_length)
    refusal = context_refusal(lmstrix_case.context_length, loaded.context_length)
    if refusal is not None:
        raise Failure(refusal.detail, verdict=refusal.verdict)
    return loaded


@pytest.fixture
def lmstrix_check(
    request: pytest.FixtureRequest, lmstrix_case: Case, lmstrix_bench: Bench
) -> RunCheck:
    """Runs a built-in check on the case of this test, and raises what it found."""

    def run(check: str, probe: Probe) -> None:
        result = request.config.stash[judge_key].trial(check, lmstrix_case, probe)
        request.node.stash[results_key] = [result]
        raise_outcome(result)

    return run


def raise_outcome(result: Result) -> None:
    """What pytest is to make of `result`: nothing for `ok`, else xfail, skip or `Failure`."""
    failure = Failure(result.detail, verdict=result.verdict)
    match result.outcome:
        case "passed":
            return
        case "xfailed":
            pytest.xfail(failure.message)
        case "skipped":
            pytest.skip(failure.message)
    raise failure  # under --runxfail pytest.xfail does nothing
