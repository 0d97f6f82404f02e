"""The fixtures, and how a finding becomes pytest's outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_lmstrix.bench import Bench, LoadedModel
from pytest_lmstrix.judging import Judge, Probe, context_refusal
from pytest_lmstrix.types import Case, Result
from pytest_lmstrix.verdicts import Failure

RunCheck = Callable[[str, Probe], None]
results_key = pytest.StashKey[list[Result]]()
"""What a test found so far, on its item."""


class Fixtures:
    """Registered as a plugin while model tests run."""

    def __init__(self, bench: Bench, judge: Judge) -> None:
        self._bench = bench
        self._judge = judge

    @pytest.fixture(scope="session")
    def lmstrix_bench(self) -> Iterator[Bench]:
        """Loads and unloads models; at the end of the session nothing stays loaded."""
        yield self._bench
        self._bench.unload()

    @pytest.fixture(scope="session")
    def lmstrix_case(self, request: pytest.FixtureRequest) -> Case:
        """The model and context length of this test."""
        case: Case = request.param
        return case

    @pytest.fixture(scope="session")
    def lmstrix_model(self, lmstrix_case: Case, lmstrix_bench: Bench) -> LoadedModel:
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
        self, request: pytest.FixtureRequest, lmstrix_case: Case, lmstrix_bench: Bench
    ) -> RunCheck:
        """Runs a built-in check on the case of this test, and raises what it found."""

        def run(check: str, probe: Probe) -> None:
            result = self._judge.trial(check, lmstrix_case, probe)
            request.node.stash.setdefault(results_key, []).append(result)
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
