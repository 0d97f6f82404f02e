"""A loaded model of each engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pytest_lmstrix.checks.requests.loaded import LoadedModel
from tests.engines.chat_arguments.engines import NO_LLAMACPP, STAND_INS, llamacpp


@pytest.fixture(
    scope="package",
    params=[*STAND_INS, pytest.param(llamacpp, marks=NO_LLAMACPP)],
    ids=lambda start: start.__name__,
)
def loaded(request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    with ExitStack() as cleanup:
        yield request.param(cleanup)


@pytest.fixture(scope="package", params=STAND_INS, ids=lambda start: start.__name__)
def stand_in(request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    with ExitStack() as cleanup:
        yield request.param(cleanup)
