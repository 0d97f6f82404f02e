"""Everything between a check and an engine, in one process: no pytest runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

from pytest_lmstrix.bench import Bench
from pytest_lmstrix.engines.base import Engine, Progress
from pytest_lmstrix.engines.lmstudio import LmStudioEngine
from pytest_lmstrix.examining import Examiner
from pytest_lmstrix.judging import Judge
from pytest_lmstrix.plan import KnownRange
from pytest_lmstrix.probing import answer_questions, say_hello
from pytest_lmstrix.types import Case, Result
from tests.support.lmstudio_server import LmStudioServer

SKIPPED = None
"""What a case is that was not tried, because a smaller size had failed."""


class Nobody:
    """A `Watch` and a `Progress` without a person before it."""

    def loading(self, model_id: str, context_length: int) -> Progress:
        return self

    def waiting(self, host: str, holder: str) -> None: ...

    def idle(self) -> None: ...

    def __call__(self, fraction: float, /) -> None: ...

    def prefill(self, done: int, total: int) -> None: ...


def bench_for(engine: Engine) -> Bench:
    return Bench(lambda model: engine, host_lock=lambda host: nullcontext(), watch=Nobody())


@contextmanager
def bench_of(server: LmStudioServer) -> Iterator[Bench]:
    """A bench over the unmodified SDK; nothing stays loaded."""
    engine = LmStudioEngine(server.host)
    bench = bench_for(engine)
    yield bench
    bench.unload()
    engine.close()


class Run:
    """What one run of pytest would find."""

    def __init__(
        self, bench: Bench, *, known: Mapping[str, KnownRange] = {}, seed: int = 1
    ) -> None:
        judge = Judge(bench, run="run", machine="machine")
        self.examiner = Examiner(judge, known=known, seed=seed)

    def check(self, check: str, cases: list[Case]) -> dict[int, list[Result] | None]:
        """Size -> what `fast`, `full` or `deep` found; `SKIPPED` without a try."""
        if check == "deep":
            self.examiner.expect_deep(cases)
        return {case.context_length: self._one(check, case) for case in cases}

    def _one(self, check: str, case: Case) -> list[Result] | None:
        if self.examiner.too_large(check, case):
            return SKIPPED
        if check == "deep":
            return self.examiner.deep(case)
        probe = say_hello if check == "fast" else answer_questions
        return self.examiner.check(check, case, probe)
