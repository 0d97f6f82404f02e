"""A host that is back is used again: for new models, and by who waits for a host of others."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager, nullcontext

import pytest

from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Engine
from pytest_lmstrix.engines.catalog import host_of
from tests.checks.loader.bare_engine import A, B, BareEngine, Watching


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> BareEngine:
    """The engine of the host `home`; whether a host is back is asked at once."""
    monkeypatch.setattr("pytest_lmstrix.checks.loader.RETURN_SECONDS", 0)
    return engine_on("home")


@pytest.fixture
def other() -> BareEngine:
    return engine_on("other")


def engine_on(host: str) -> BareEngine:
    engine = BareEngine()
    engine.host = host  # type: ignore[attr-defined]
    return engine


def test_a_host_that_is_back_is_used_for_models_that_it_never_had(
    home: BareEngine, other: BareEngine
) -> None:

    def engine_of(model: Model, gone: Container[str]) -> Engine:
        found = home if "home" not in gone or "other" in gone else other
        return found  # type: ignore[return-value]

    loader = ModelLoader(engine_of, host_lock=lambda *_: nullcontext(), watch=Watching())
    away = Failure("away", verdict=Verdict.UNREACHABLE)
    home.raises["models"] = loader.gone["home"] = away
    loader.choose_host(A)
    loader.load(A, 5)
    assert (home.log, other.log) == ([], ["load a 5"])
    del home.raises["models"]
    loader.choose_host(A)
    loader.load(A, 6)
    assert home.log == [], "a model stays where its results are"
    loader.choose_host(B)
    loader.load(B, 5)
    assert home.log == ["load b 5"]


def test_who_waits_for_a_host_of_others_goes_back_to_its_own(
    home: BareEngine, other: BareEngine
) -> None:

    def engine_of(model: Model, gone: Container[str]) -> Engine:
        return other if "home" in gone else home  # type: ignore[return-value]

    @contextmanager
    def host_lock(used: Engine, case: Case, wait_seconds: float | None) -> Iterator[None]:
        if host_of(used) == "other":
            assert wait_seconds == 0
            del home.raises["models"]
            raise TimeoutError
        yield

    loader = ModelLoader(engine_of, host_lock=host_lock, watch=Watching())
    home.raises["models"] = loader.gone["home"] = Failure("away", verdict=Verdict.UNREACHABLE)
    loader.choose_host(A)
    loader.load(A, 5)
    assert (home.log, other.log) == (["load a 5"], [])
