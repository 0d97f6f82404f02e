"""The plan of a run: models and earlier results in, cases in order out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH, Case, Host, Model, ModelFacts, fingerprint
from pytest_lmstrix.weights.source import identity

ROOMY = 4_096
"""Room for questions with tools or a picture, and a long answer; tokens."""
LADDER = (30_000, 40_000, 60_000, 80_000, 100_000, 120_000)
EMBEDDING_CONTEXT = 512
"""Size of an embedding model whose declared maximum is unknown, tokens: few have less."""


class PlannedModel(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model with the facts of its engine, and the sizes to test it at."""

    model: Model
    context_lengths: tuple[int, ...]
    hosts: tuple[str, ...] = ()
    """The hosts where it may be tested: that have it, and where it fits; empty: any will do."""
    seconds: float = 0.0
    """Expected duration of all its cases."""
    bytes_needed: tuple[int, ...] = ()
    """The least memory at each of `context_lengths`; empty where no host has a limit."""
    unfit_from: int | None = None
    """The smallest size that cannot be tested on any of the hosts."""
    unfit: str = ""
    """Why."""

    def why_unfit(self, context_length: int) -> str | None:
        """Return why a size is not tested, `None` if it is."""
        return self.unfit if context_length >= (self.unfit_from or 0) and self.unfit else None

    def whole(self) -> Case:
        """Return the model at its declared maximum, or at the largest size to test."""
        largest = self.model.context_limit or self.context_lengths[-1]
        return Case(model=self.model, context_length=largest)

    def smallest_roomy(self) -> Case:
        """Return the model at its smallest size from `ROOMY` up, else at its largest."""
        sizes = self.context_lengths
        size = next((each for each in sizes if each >= ROOMY), sizes[-1])
        return Case(model=self.model, context_length=size)


class KnownRange(Struct, frozen=True, kw_only=True):
    """The sizes that are known of a model in one check; tokens."""

    good: int | None = None
    """The largest size that works."""
    bad: int | None = None
    """The smallest larger size that fails."""


class Plan(Struct, frozen=True, kw_only=True):
    """The plan of a run; made once, by the controller."""

    run: str
    models: tuple[PlannedModel, ...]
    hosts: tuple[Host, ...] = ()
    embedding: tuple[PlannedModel, ...] = ()
    """The embedding models, which only users' own tests use."""
    seed: int = 0
    """Determines the needles of `deep`."""
    known: dict[str, int] = {}
    """Check and case id, as `full[ID]` -> version of the check that it passed before."""
    ranges: dict[str, KnownRange] = {}
    """Check and model id, likewise -> the sizes that work and fail."""
    speeds: dict[str, dict[int, float]] = {}
    """Likewise -> size -> decoded tokens per second."""

    def cases(self) -> tuple[Case, ...]:
        return tuple(
            Case(model=planned.model, context_length=size)
            for planned in self.models
            for size in planned.context_lengths
        )

    def embedding_cases(self) -> tuple[Case, ...]:
        """Return the cases of tests with `lmstrix_embedding`."""
        return tuple(
            Case(model=planned.model, context_length=size)
            for planned in self.embedding
            for size in planned.context_lengths
        )

    def all_models(self) -> tuple[PlannedModel, ...]:
        return (*self.models, *self.embedding)


def ladder(context_limit: int | None) -> tuple[int, ...]:
    """Return the default sizes: the steps below the declared maximum, and maximum - 1."""
    if context_limit is None:
        return LADDER
    below = [size for size in LADDER if size < context_limit]
    return tuple(dict.fromkeys([*below, max(1, context_limit - 1)]))


def with_facts(model: Model, facts: ModelFacts | None) -> Model:
    """Fill in what the manifest leaves open from the engine's `facts`."""
    if facts is None:
        facts = ModelFacts(
            id=model.id,
            type="llm",
            fingerprint=fingerprint(
                sha256=model.sha256,
                size_bytes=model.size_bytes,
                path=identity(model.source) if model.source else None,
            ),
        )
    facts = replace(facts, context_limit=_sensible(facts.context_limit))
    open_fields = ("type", "context_limit", "size_bytes", "architecture", "quantization",
                   "capabilities", "fingerprint")  # fmt: skip
    return replace(model, **{name: getattr(model, name) or getattr(facts, name)
                             for name in open_fields})  # fmt: skip


def _sensible(context_limit: int | None) -> int | None:
    """Return the declared maximum within the bounds of sizes; `None` below 1."""
    if context_limit is None or context_limit < 1:
        return None
    return min(context_limit, MAX_CONTEXT_LENGTH)


def planned(model: Model, contexts: Sequence[int] | None, hosts: Iterable[str]) -> PlannedModel:
    """Plan `model` at `contexts` if given, else at its own sizes, else at the ladder."""
    sizes = contexts or model.contexts or ladder(model.context_limit)
    return PlannedModel(model=model, context_lengths=tuple(sorted(set(sizes))), hosts=tuple(hosts))


def planned_embedding(
    model: Model, contexts: Sequence[int] | None, hosts: Iterable[str]
) -> PlannedModel:
    """Plan an embedding model at `contexts` if given, else at its own sizes.

    Those above its declared maximum are meant for language models; if none remains, that is tested.
    """
    limit = model.context_limit
    sizes = contexts or model.contexts or ()
    declared = [size for size in sizes if limit is None or size <= limit]
    return planned(model, declared or (limit or EMBEDDING_CONTEXT,), hosts)


def smart_key(model: Model, estimated_bytes: int | None = None) -> int:
    """Return the memory that `model` needs, in bytes: the estimate, or a formula without one.

    The formula is size in bytes + declared maximum * 100,000; unknown values count as 0.
    """
    if estimated_bytes is not None:
        return estimated_bytes
    return (model.size_bytes or 0) + (model.context_limit or 0) * 100_000


def _no_estimate(_: PlannedModel) -> None:
    return None


def ordered(
    models: Iterable[PlannedModel],
    key: str,
    known: Mapping[str, Callable[[str], Any]],
    estimated_bytes: Callable[[PlannedModel], int | None] = _no_estimate,
) -> tuple[PlannedModel, ...]:
    """Sort `models` by `key`, one of `options.SORT_KEYS`; a trailing d reverses.

    `known` maps keys to the values of earlier results, `estimated_bytes` returns the memory that
    the largest case of a model needs. Models without a value come last in both directions; `smart`
    always has one.
    """
    own: dict[str, Callable[[PlannedModel], Any]] = {
        "smart": lambda each: smart_key(each.model, estimated_bytes(each)),
        "id": lambda each: each.model.id,
        "size": lambda each: each.model.size_bytes,
        "declared": lambda each: each.model.context_limit,
    }
    descending = key not in own and key not in known
    name = key[:-1] if descending else key
    value = own.get(name) or (lambda each: known[name](each.model.id))
    having = [(value(each), each) for each in models]
    found = sorted(
        (pair for pair in having if pair[0] is not None),
        key=lambda pair: pair[0],
        reverse=descending,
    )
    return (*(each for _, each in found), *(each for at, each in having if at is None))


def check_key(check: str, case_id: str) -> str:
    """The key of a check of a case in `Plan.known`."""
    return f"{check}[{case_id}]"
