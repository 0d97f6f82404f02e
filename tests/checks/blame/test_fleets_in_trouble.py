"""Generated fleets over three runs: nothing is held against a model that had no part in it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from msgspec import Struct

from pytest_lmstrix.checks.attempt import Attempts
from pytest_lmstrix.checks.hosts import MODELS_IN_A_ROW
from pytest_lmstrix.checks.sizes import SizePolicy
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, Model, Result
from pytest_lmstrix.core.verdicts import Status, Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.registry.fold import Fold
from tests.checks.laboratory import loader_for
from tests.standin.fake_engine import FakeEngine, FakeInstance
from tests.standin.lmstudio import (
    Corrupted,
    Crashes,
    GrantsMore,
    MissingFromDisk,
    OutOfMemory,
    SharesContext,
    StandInModel,
    Unsupported,
)
from tests.standin.lmstudio.models.behaviours import AnyBehaviour, ChatOnly, FailsToLoad

FLEETS = 200
BATCH = 20
RUNS = 3
DECLARED = 131_072
SIZES = {
    "fast": (1_024, 3_000, 5_000, 12_000, 40_000),
    "full": (1_024, 3_000, 5_000, 12_000, 40_000),
    "deep": (1_024, 3_000),
    "limit": (40_000,),
}
"""Check -> the sizes that a model may have."""
LIMIT = 9_000
COMPANION = (
    "failed to load draft model, '/models/big-mtp.gguf': error loading model: invalid vector"
    " subscript"
)
TROUBLES = (
    "Failed to load LLM engine from path C:\\runtime\\x.node. The specified module could not be"
    " found",
    "Invalid load message",
    "LM Link connection entered error state: peer_keepalive_timeout",
)

HEALTHY: dict[str, tuple[AnyBehaviour, ...]] = {
    "healthy": (),
    "chat": (ChatOnly(),),
    "generous": (GrantsMore(at_least=50_000),),
    "slots": (SharesContext(slots=4),),
    "accident": (FailsToLoad(text="HTTP 500: internal server error", times=1),),
    "accident-at-work": (Crashes(at="predict"),),
}
BROKEN: dict[str, tuple[AnyBehaviour, Status]] = {
    "corrupted": (Corrupted(at="load"), "corrupted"),
    "missing": (MissingFromDisk(), "missing"),
    "unsupported": (Unsupported(), "failed"),
    "companion": (FailsToLoad(text=COMPANION), "failed"),
}
"""Kind -> how it fails at every size until it is repaired, and its status until then."""


class Member(Struct, frozen=True, kw_only=True):
    """A model of a fleet."""

    kind: str
    check: str
    sizes: tuple[int, ...]
    repaired_in: int = RUNS
    """The first run in which a broken kind works."""

    @property
    def model(self) -> Model:
        return Model(id=self.kind, engine="fake", context_limit=DECLARED)

    def cases(self) -> list[Case]:
        return [Case(model=self.model, context_length=size) for size in self.sizes]

    def stand_in(self, run: int) -> StandInModel:
        behaviours = HEALTHY.get(self.kind, ())
        if self.kind in BROKEN and run < self.repaired_in:
            behaviours = (BROKEN[self.kind][0],)
        elif self.kind == "limited":
            behaviours = (OutOfMemory(above=LIMIT),)
        return StandInModel(key=self.kind, max_context_length=DECLARED, behaviours=behaviours)

    def status(self, run: int) -> Status:
        """The true status after `run`, if its host was well in it."""
        if self.kind in BROKEN and run < self.repaired_in:
            return BROKEN[self.kind][1]
        if self.shares_too_little:
            return "failed"
        return "completed"  # a limited model works at a size that its search finds

    @property
    def shares_too_little(self) -> bool:
        """Whether a request cannot fill the context, since several share it."""
        return self.kind == "slots" and self.check == "deep"

    def is_right(self, result: Result, run: int) -> bool:
        """Whether a verdict on it is true; of a companion, that it is not the main model's."""
        if self.kind in BROKEN and run < self.repaired_in:
            blamed = (Verdict.OK, Verdict.HOST_TROUBLE)
            if self.kind == "companion":
                blamed = (*blamed, Verdict.CORRUPTED, Verdict.MODEL_NOT_FOUND)
            return result.verdict not in blamed
        if self.shares_too_little:
            return result.verdict is Verdict.CONTEXT_NOT_GRANTED
        lacks = self.kind == "limited" and result.context_length > LIMIT
        return result.verdict is (Verdict.OUT_OF_MEMORY if lacks else Verdict.OK)


class Host(FakeEngine):
    """An engine whose host may be in trouble: then every load fails with the same words."""

    trouble: str | None = None

    def load(self, model: Model, context_length: int, progress: Progress) -> FakeInstance:
        if self.trouble is not None:
            raise Failure.from_engine(self.trouble, phase="load")
        return super().load(model, context_length, progress)


def fleet(rng: Random) -> list[Member]:
    kinds = [*rng.sample(list(HEALTHY), 3), *rng.sample(list(BROKEN), 2), "limited"]
    rng.shuffle(kinds)
    return [_member(rng, kind) for kind in kinds]


def _member(rng: Random, kind: str) -> Member:
    check = rng.choice(("fast", "full", "full", "deep", "limit"))
    most = min(3, len(SIZES[check]))
    return Member(
        kind=kind,
        check=check,
        sizes=tuple(sorted(rng.sample(SIZES[check], rng.randint(1, most)))),
        repaired_in=rng.randint(1, RUNS),
    )


def results_of(
    engine: Host, members: Sequence[Member], run: int, trouble: str, well: int
) -> list[Result]:
    """The lines of one run, in the order in which they are recorded.

    The host is in `trouble` after the first `well` members.
    """
    attempts = Attempts(loader_for(engine), run=f"run-{run}", machine="machine")
    policy = SizePolicy(attempts, known={}, seed=run)
    lines: list[Result] = []
    for member in members:
        if member.check == "deep":
            policy.expect("deep", member.cases())
    for number, member in enumerate(members):
        engine.trouble = trouble if number >= well else None
        for case in member.cases():
            stopped = attempts.loader.unreachable_reason(member.model) is not None
            if not stopped and not policy.too_large(member.check, case):
                lines += policy.run(member.check, case)
                lines += attempts.take_withdrawn()
    attempts.loader.unload()
    assert engine.loaded == 0
    return lines


def statuses(fold: Fold, members: Sequence[Member]) -> dict[str, Status]:
    found = {each.kind: fold.status(each.kind) for each in members}
    return {kind: known.status if known else "untested" for kind, known in found.items()}


@pytest.mark.parametrize("batch", range(FLEETS // BATCH))
def test_three_runs_of_a_fleet_hold_against_each_model_only_its_own_faults(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rng = Random(seed)
        members, fold = fleet(rng), Fold()
        by_kind = {each.kind: each for each in members}
        expected: dict[str, Status] = dict.fromkeys(by_kind, "untested")
        for run in range(RUNS):
            in_trouble = rng.random() < 0.4
            # Fewer than three models in a row prove nothing about a host.
            well = rng.randint(0, len(members) - MODELS_IN_A_ROW) if in_trouble else len(members)
            engine = Host([each.stand_in(run) for each in members])
            lines = results_of(engine, members, run, rng.choice(TROUBLES), well)
            for line in lines:
                fold.add(line)
            judged = {each.kind for each in members[:well]}
            expected |= {each.kind: each.status(run) for each in members[:well]}
            assert {each.model for each in lines} >= judged
            for line in lines:
                member = by_kind[line.model]
                if line.model in judged:
                    assert member.is_right(line, run), (seed, run, line)
                else:
                    assert line.verdict is not Verdict.OK, (seed, run, line)
            assert in_trouble is any(each.verdict.subject == "host" for each in lines)
            assert statuses(fold, members) == expected, (seed, run)
