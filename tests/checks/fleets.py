"""Generated fleets of models with known limits, and the expected verdict at every size."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from msgspec import Struct

from pytest_lmstrix.core.types import Case, Model
from pytest_lmstrix.core.verdicts import Verdict
from tests.standin.lmstudio import (
    Corrupted,
    Crashes,
    CrashesAbove,
    CutsPrompt,
    ForgetsMiddle,
    Gibberish,
    GrantsAtMost,
    GrantsMore,
    Guardrail,
    MissingFromDisk,
    OutOfMemory,
    Reasons,
    Says,
    SeesLast,
    SlowDecode,
    StandInModel,
    Unsupported,
)
from tests.standin.lmstudio.models.behaviours import AnyBehaviour, Check

BLUR = 0.9
"""A model that forgets a tenth of a context misses a fact; below that it may pass."""

Limited = Callable[[int], AnyBehaviour]
LIMITED: dict[str, tuple[Limited, dict[Check, Verdict]]] = {
    "capped": (
        lambda n: GrantsAtMost(tokens=n),
        {"full": Verdict.CONTEXT_NOT_GRANTED, "deep": Verdict.CONTEXT_NOT_GRANTED},
    ),
    "no-memory": (
        lambda n: OutOfMemory(above=n),
        {"full": Verdict.OUT_OF_MEMORY, "deep": Verdict.OUT_OF_MEMORY},
    ),
    "no-memory-to-predict": (
        lambda n: OutOfMemory(above=n, at="predict"),
        {"full": Verdict.OUT_OF_MEMORY, "deep": Verdict.OUT_OF_MEMORY},
    ),
    "guarded": (
        lambda n: Guardrail(above=n),
        {"full": Verdict.GUARDRAIL_REFUSED, "deep": Verdict.GUARDRAIL_REFUSED},
    ),
    "crashing-above": (
        lambda n: CrashesAbove(above=n),
        {"full": Verdict.CRASHED, "deep": Verdict.CRASHED},
    ),
    "crashing-above-at-work": (
        lambda n: CrashesAbove(above=n, at="predict"),
        {"full": Verdict.CRASHED, "deep": Verdict.CRASHED},
    ),
    "garbage": (
        lambda n: Gibberish(above=n),
        {"full": Verdict.WRONG_ANSWER, "deep": Verdict.RECALL_FAILED},
    ),
    "garbage-when-filled": (
        lambda n: Gibberish(above=n, measure="filled"),
        {"deep": Verdict.RECALL_FAILED},
    ),
    "forgets-beginning": (lambda n: SeesLast(tokens=n), {"deep": Verdict.RECALL_FAILED}),
    "forgets-middle": (
        lambda n: ForgetsMiddle(start=n // 2, end=n - n // 2),
        {"deep": Verdict.RECALL_FAILED},
    ),
    "cuts-prompt": (lambda n: CutsPrompt(tokens=n), {"deep": Verdict.PROMPT_TRUNCATED}),
}
"""Behaviours that work up to a capacity, and the verdicts above it."""

BROKEN: dict[str, tuple[AnyBehaviour, Verdict, Verdict]] = {
    "corrupted": (Corrupted(), Verdict.CORRUPTED, Verdict.CORRUPTED),
    "broken-file": (Corrupted(at="load"), Verdict.CORRUPTED, Verdict.CORRUPTED),
    "missing": (MissingFromDisk(), Verdict.MODEL_NOT_FOUND, Verdict.MODEL_NOT_FOUND),
    "unsupported": (Unsupported(), Verdict.UNSUPPORTED, Verdict.UNSUPPORTED),
    "crashing": (Crashes(times=10**9), Verdict.CRASHED, Verdict.CRASHED),
    "crashing-at-work": (Crashes(at="predict", times=10**9), Verdict.CRASHED, Verdict.CRASHED),
    "silent": (Says(text=""), Verdict.EMPTY_REPLY, Verdict.INCONCLUSIVE),
    "clueless": (Says(text="No idea."), Verdict.WRONG_ANSWER, Verdict.INCONCLUSIVE),
    "brooding": (
        Reasons(tokens=5_000, in_completions=True),
        Verdict.NO_ANSWER_IN_BUDGET,
        Verdict.INCONCLUSIVE,
    ),
}
"""Behaviours that fail at every size, and the verdicts of `full` and `deep`."""

HARMLESS: tuple[tuple[AnyBehaviour, ...], ...] = (
    (),
    (),
    (Crashes(),),
    (Crashes(at="predict"),),
    (GrantsMore(multiple_of=256),),
    (SlowDecode(above=20_000),),
    (Reasons(tokens=50),),
)
"""Behaviours that must not change a verdict; some need a retry."""


class Subject(Struct, frozen=True, kw_only=True):
    """A model for one check, and its expected results."""

    check: Check
    stand_in: StandInModel
    sizes: tuple[int, ...]
    above: Verdict
    """The verdict at sizes above the capacity."""

    @property
    def model(self) -> Model:
        """The model as in a manifest."""
        declared = self.stand_in.max_context_length
        return Model(id=self.stand_in.key, engine="lmstudio", context_limit=declared)

    def cases(self) -> list[Case]:
        """In ascending order."""
        return [Case(model=self.model, context_length=size) for size in self.sizes]

    @property
    def capacity(self) -> int:
        """The largest context that works, tokens."""
        broken = any(isinstance(b, Crashes) and b.times > 1 for b in self.stand_in.behaviours)
        brooding = any(
            isinstance(b, Reasons) and b.in_completions for b in self.stand_in.behaviours
        )
        return 0 if broken or brooding else self.stand_in.capacity(self.check)

    def verdict(self, size: int) -> Verdict:
        """The expected verdict at `size`."""
        return Verdict.OK if size <= self.capacity else self.above

    @property
    def needs_two_tries(self) -> bool:
        """Whether the first attempt must fail."""
        return any(isinstance(b, Crashes) for b in self.stand_in.behaviours)


def fleet(seed: int) -> list[Subject]:
    """One healthy model and three others, two of them for `full`, in random order."""
    rng = Random(seed)
    subjects = [
        _healthy(rng, f"healthy-{seed}"),
        _limited(rng, f"full-{seed}", "full"),
        _limited(rng, f"deep-{seed}", "deep"),
        _broken(rng, f"broken-{seed}"),
    ]
    rng.shuffle(subjects)
    return subjects


def _healthy(rng: Random, key: str) -> Subject:
    check: Check = rng.choice(("full", "full", "deep"))
    stand_in = StandInModel(
        key=key,
        max_context_length=rng.choice((8_192, 32_768, 131_072)),
        behaviours=rng.choice(HARMLESS),
    )
    most = min(stand_in.max_context_length, 4_000 if check == "deep" else 10**6)
    sizes = _sizes(rng, 500 if check == "deep" else 300, most)
    return Subject(check=check, stand_in=stand_in, sizes=sizes, above=Verdict.ENGINE_ERROR)


def _limited(rng: Random, key: str, check: Check) -> Subject:
    kind = rng.choice([name for name, (_, above) in LIMITED.items() if check in above])
    limited, above = LIMITED[kind]
    declared = rng.choice((65_536, 100_000, 131_072, 200_000))
    least, most = (500, 6_500) if check == "deep" else (500, declared)
    while True:
        behaviour = limited(round(least * (most / least) ** rng.random()))
        stand_in = StandInModel(
            key=f"{kind}-{key}",
            max_context_length=declared,
            behaviours=(*rng.choice(HARMLESS), behaviour),
        )
        subject = Subject(
            check=check,
            stand_in=stand_in,
            sizes=_sizes(rng, least, most),
            above=above[check],
        )
        if all(_is_clear(size, subject.capacity) for size in subject.sizes):
            return subject


def _broken(rng: Random, key: str) -> Subject:
    kind = rng.choice(list(BROKEN))
    behaviour, *verdicts = BROKEN[kind]
    check: Check = rng.choice(("full", "full", "deep"))
    most = 1_000 if check == "deep" else 131_072
    return Subject(
        check=check,
        stand_in=StandInModel(key=f"{kind}-{key}", behaviours=(behaviour,)),
        sizes=_sizes(rng, 500 if check == "deep" else 300, most),
        above=verdicts[check == "deep"],
    )


def _sizes(rng: Random, least: int, most: int) -> tuple[int, ...]:
    drawn = {round(least * (most / least) ** rng.random()) for _ in range(rng.randint(1, 3))}
    return tuple(sorted(drawn))


def _is_clear(size: int, capacity: int) -> bool:
    return size <= capacity or size * BLUR > capacity
