"""Fixtures of the built-in checks, and of users' checks: a language or an embedding model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_lmstrix.checks.attempt import Attempts
from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.checks.requests.embedding import EmbeddingModel
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.checks.sizes import SizePolicy
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, Result
from pytest_lmstrix.core.verdicts import Verdict

RunCheck = Callable[[str], None]
loader_key = pytest.StashKey[ModelLoader]()
"""The loader of this process, on its config."""
attempts_key = pytest.StashKey[Attempts]()
"""The attempts of this process, on its config."""
size_policy_key = pytest.StashKey[SizePolicy]()
"""The size policy of this process, on its config."""
results_key = pytest.StashKey[list[Result]]()
"""Results of a test, on its item: its own, then those of other sizes it tried."""


@pytest.fixture(scope="session")
def lmstrix_loader(pytestconfig: pytest.Config) -> Iterator[ModelLoader]:
    """Loader of this process; unloads the last model at the end of the session."""
    loader = pytestconfig.stash[loader_key]
    yield loader
    loader.unload()


@pytest.fixture(scope="session")
def lmstrix_case(request: pytest.FixtureRequest) -> Case:
    """The model and context length of this test."""
    case: Case = request.param
    return case


@pytest.fixture(scope="session")
def lmstrix_model(
    pytestconfig: pytest.Config, lmstrix_case: Case, lmstrix_loader: ModelLoader
) -> LoadedModel:
    """The model of this test, loaded once for all tests of a model and size.

    It has `model`, `context_length` (granted, tokens), `complete`, `chat` and `count_tokens`.
    Choose models and sizes with `@pytest.mark.lmstrix(match="*llama*", contexts=[8192])`.
    """
    return pytestconfig.stash[attempts_key].load(lmstrix_case)


@pytest.fixture(scope="session")
def lmstrix_embedding(
    pytestconfig: pytest.Config, lmstrix_case: Case, lmstrix_loader: ModelLoader
) -> EmbeddingModel:
    """The embedding model of this test, loaded once for all tests of a model and size.

    It has `embed`, `dimension`, `similarity` and `ranked`, `check_normalized`, `check_context` and
    `check_overflow`. The embedding models of the manifest are chosen as for `lmstrix_model`.
    """
    return EmbeddingModel(pytestconfig.stash[attempts_key].load(lmstrix_case))


@pytest.fixture
def lmstrix_check(
    request: pytest.FixtureRequest, lmstrix_case: Case, lmstrix_loader: ModelLoader
) -> RunCheck:
    """Runs a built-in check on the case of this test, and raises its failure."""
    size_policy = request.config.stash[size_policy_key]

    def run(check: str) -> None:
        reason = size_policy.too_large(check, lmstrix_case)
        if reason is not None:
            pytest.skip(reason)
        results = size_policy.run(check, lmstrix_case)
        request.node.stash[results_key] = results
        verdict = results[0].verdict
        if verdict is not Verdict.OK:
            known = lmstrix_loader.unreachable_reason(lmstrix_case.model)
            final = verdict is Verdict.UNREACHABLE and known is not None and known.final
            code = known.code if known is not None else None
            failure = Failure(results[0].detail, verdict=verdict, code=code, final=final)
            lmstrix_loader.name_host(failure, lmstrix_case.model)
            raise failure

    return run
