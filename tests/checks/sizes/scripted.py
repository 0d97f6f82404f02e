"""An engine whose loads fail at scripted sizes, and runs of checks with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, Model, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from tests.checks.laboratory import SKIPPED, Run, loader_for
from tests.standin.fake_engine import FakeEngine, FakeInstance
from tests.standin.lmstudio import (
    StandInModel,
)
from tests.standin.lmstudio.models.behaviours import AnyBehaviour

DECLARED = 131_072


class Scripted(FakeEngine):
    """An engine with the model `tiny`; loads of some sizes fail with a verdict."""

    def __init__(self, *behaviours: AnyBehaviour, failing: Mapping[int, Verdict] = {}) -> None:
        super().__init__((StandInModel(key="tiny", behaviours=behaviours),))
        self.failing = dict(failing)
        self.loads: list[int] = []

    def load(self, model: Model, context_length: int, progress: Progress) -> FakeInstance:
        self.loads.append(context_length)
        if context_length in self.failing:
            verdict = self.failing[context_length]
            raise Failure(f"scripted {verdict}", verdict=verdict, phase="load")
        return super().load(model, context_length, progress)

    def taken(self) -> list[int]:
        """The sizes loaded since the last call."""
        loads, self.loads = self.loads, []
        return loads


def case(size: int, declared: int | None = DECLARED) -> Case:
    return Case(model=Model(id="tiny", engine="fake", context_limit=declared), context_length=size)


def run_of(engine: FakeEngine, **more: Any) -> Run:
    return Run(loader_for(engine), **more)


def full(run: Run, size: int, declared: int | None = DECLARED) -> list[Result]:
    results = run.check("full", [case(size, declared)])[size]
    assert results is not SKIPPED
    return results
