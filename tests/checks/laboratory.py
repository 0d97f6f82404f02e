"""Run checks against an engine in this process, without a pytest run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

from pytest_lmstrix.checks.attempt import Attempts
from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.checks.sizes import SizePolicy
from pytest_lmstrix.core.types import Case, Result
from pytest_lmstrix.engines.base import Engine, Progress
from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine
from pytest_lmstrix.plan.plan import KnownRange
from tests.standin.lmstudio import LmStudioServer

SKIPPED = None
"""The result of a case that was skipped because a smaller size had failed."""


class NoWatch:
    """A `Watch` and a `Progress` that display nothing."""

    def loading(self, model_id: str, context_length: int) -> Progress:
        return self

    def waiting(self, host: str, holder: str) -> None: ...

    def idle(self) -> None: ...

    def __call__(self, fraction: float, /) -> None: ...

    def prefill(self, done: int, total: int) -> None: ...


def loader_for(engine: Engine) -> ModelLoader:
    return ModelLoader(
        lambda model, gone: engine, host_lock=lambda *_: nullcontext(), watch=NoWatch()
    )


@contextmanager
def loader_of(server: LmStudioServer) -> Iterator[ModelLoader]:
    """A loader on the unmodified SDK that unloads everything at the end."""
    engine = LmStudioEngine(server.host)
    loader = loader_for(engine)
    yield loader
    loader.unload()
    engine.close()


class Run:
    """The results that one pytest run would have."""

    def __init__(
        self, loader: ModelLoader, *, known: Mapping[str, KnownRange] = {}, seed: int = 1
    ) -> None:
        self.attempts = Attempts(loader, run="run", machine="machine")
        self.size_policy = SizePolicy(self.attempts, known=known, seed=seed)

    def check(self, check: str, cases: list[Case]) -> dict[int, list[Result] | None]:
        """Results of `fast`, `full`, `deep` or `speed` by size; `SKIPPED` if not tried."""
        if check in ("deep", "speed"):
            self.size_policy.expect(check, cases)
        return {case.context_length: self._one(check, case) for case in cases}

    def _one(self, check: str, case: Case) -> list[Result] | None:
        if self.size_policy.too_large(check, case):
            return SKIPPED
        return self.size_policy.run(check, case)
