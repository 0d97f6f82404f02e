"""The tiers of `deep`: a fleet of known truth, and no influence on the verdict."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, Model, Reply, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.registry.fold import Fold
from pytest_lmstrix.registry.known import DeepTiers
from tests.checks.laboratory import Run, loader_for
from tests.standin.fake_engine import FakeEngine, FakeInstance
from tests.standin.lmstudio import SeesLast, StandInModel
from tests.standin.lmstudio.models.behaviours import Confuses

SIZES = (6_000, 9_000, 14_000)
ANY = 10**9


class RankingInstance(FakeInstance):
    """An instance that gives log-probabilities, which need no text."""

    def complete(self, prompt: str, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        assert max_tokens == 1 or "code word" not in prompt.rsplit("\n", 1)[-1]
        return super().complete(prompt, max_tokens=max_tokens, temperature=temperature)

    def rank(self, prompt: str) -> Reply:
        """The token that it would write, among others."""
        reply = self.complete(prompt, max_tokens=1)
        said = reply.text
        return replace(reply, likeliest={" the": -0.1, said: -0.5, " rocket": -3, " zebra": -4})


class Engine(FakeEngine):
    """Loads instances of `kind`, and keeps what they replied."""

    kind: type[FakeInstance] = FakeInstance

    def load(self, model: Model, context_length: int, progress: Progress) -> FakeInstance:
        instance = super().load(model, context_length, progress)
        instance.__class__ = self.kind
        return instance


class RankingEngine(Engine):
    kind = RankingInstance


class FailsAtTiers(FakeInstance):
    """The engine dies at the questions of the tiers."""

    def complete(self, prompt: str, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        if "code word" in prompt.rsplit("\n", 1)[-1]:
            raise Failure("the model has crashed", verdict=Verdict.CRASHED, phase="predict")
        return super().complete(prompt, max_tokens=max_tokens, temperature=temperature)


class FailingEngine(Engine):
    kind = FailsAtTiers


def deep(engine: FakeEngine, key: str, seed: int = 1) -> list[Result]:
    """All results of `deep` at `SIZES`, those of searches included."""
    run = Run(loader_for(engine), seed=seed)
    model = Model(id=key, engine="fake", context_limit=131_072)
    found = run.check("deep", [Case(model=model, context_length=size) for size in SIZES])
    return [result for results in found.values() for result in results or ()]


def tiers(results: list[Result]) -> DeepTiers | None:
    fold = Fold()
    for result in results:
        fold.add(result)
    status = fold.status(results[0].model)
    assert status is not None
    return status.tiers


@pytest.mark.parametrize("engine", [Engine, RankingEngine])
def test_the_recorded_sizes_are_those_of_the_fleet(engine: type[Engine]) -> None:
    rng = Random(7)
    gaps = (5_000, 7_500, 11_000, ANY)
    for n in range(6):
        reach, resist, follow = rng.choice((7_500, ANY)), rng.choice(gaps), rng.choice(gaps)
        behaviours = (Confuses(resists=resist, follows=follow), SeesLast(tokens=reach))
        key = f"m{n}"
        results = deep(engine((StandInModel(key=key, behaviours=behaviours),)), key, seed=n)
        good = [r.context_length for r in results if r.verdict is Verdict.OK]
        assert all(size <= reach for size in good)
        asked = {size for size in SIZES if size <= reach}
        assert set(SIZES) & set(good) == asked  # a search asks for its verdict alone
        assert tiers(results) == DeepTiers(
            reach=max(good),
            resist=max((size for size in asked if size <= resist), default=None),
            follow=max((size for size in asked if size <= min(resist, follow)), default=None),
        )


def test_what_a_model_cannot_do_in_a_few_lines_is_not_claimed() -> None:
    model = StandInModel(key="tiny", behaviours=(Confuses(resists=ANY, follows=0),))
    results = deep(FakeEngine((model,)), "tiny")
    assert [result.tiers for result in results] == [{"resist": True}] * len(SIZES)
    assert tiers(results) == DeepTiers(reach=SIZES[-1], resist=SIZES[-1])


def test_a_failure_at_a_tier_changes_no_verdict() -> None:
    results = deep(FailingEngine(), "tiny")
    assert [(result.verdict, result.tiers) for result in results] == [(Verdict.OK, None)] * 3
    assert not any(result.retried for result in results)
    assert tiers(results) is None


class Distracted(FakeInstance):
    """Forgets in a long text that has rivals, except at `SIZES[0]`."""

    def complete(self, prompt: str, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        if "code word" in prompt and self.count_tokens(prompt) > SIZES[0]:
            return Reply(text=" gone")
        return super().complete(prompt, max_tokens=max_tokens, temperature=temperature)


class DistractedEngine(Engine):
    kind = Distracted


def test_rivals_never_cost_a_model_its_verdict() -> None:
    engine = DistractedEngine()
    results = deep(engine, "tiny")
    assert [result.verdict for result in results] == [Verdict.OK] * 3
    assert all(all((result.recall or {}).values()) for result in results)
    assert [result.tiers for result in results] == [{"resist": True, "follow": True}, None, None]
    assert engine.events == [f"load tiny {SIZES[-1]}"]


@pytest.mark.parametrize("sizes", [(1_024,), (4_096, 8_192), (1_024, 4_095), SIZES])
def test_the_prefill_of_all_sizes_stays_within_its_budget(sizes: tuple[int, ...]) -> None:
    loader = loader_for(FakeEngine())
    run = Run(loader)
    model = Model(id="tiny", engine="fake", context_limit=131_072)
    run.check("deep", [Case(model=model, context_length=size) for size in sizes])
    loaded = loader.loaded()
    assert loaded is not None
    fresh = [(r.prompt_tokens or 0) - (r.cached_prompt_tokens or 0) for r in loaded.replies]
    asked = len(fresh) > 10 * len(sizes)
    assert asked is (sizes in ((4_096, 8_192), SIZES))
    assert sum(fresh) <= 1.1 * max(sizes) or not asked
