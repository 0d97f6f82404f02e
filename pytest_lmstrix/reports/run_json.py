"""A run as data, the source of all reports and the content of reports/run.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from pytest_lmstrix.core.types import Model, ModelType, Origin, Proof, Result
from pytest_lmstrix.core.verdicts import Outcome, Status, Verdict
from pytest_lmstrix.registry.fold import ModelStatus
from pytest_lmstrix.registry.history.change import Change
from pytest_lmstrix.registry.history.since import Since
from pytest_lmstrix.registry.history.updates import EngineUpdate
from pytest_lmstrix.registry.known import DeepTiers, VerifyingCheck
from pytest_lmstrix.registry.status import VariantComparison


class CaseReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One test."""

    node_id: str
    outcome: str
    """pytest's category: passed, failed, error, skipped, xfailed, xpassed."""
    reason: str = ""
    """Cause, unless it passed."""
    results: tuple[Result, ...] = ()
    """Its results, its own case first; empty without a verdict."""


class ModelReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model that was tested, and what is known of it now; sizes in tokens."""

    id: str
    engine: str
    type: ModelType = "llm"
    context_limit: int | None = None
    """Declared maximum."""
    size_bytes: int | None = None
    verdict: Verdict | None = None
    """Of the smallest size that is not `ok`, else `ok`; `null` if never tested."""
    earlier: Result | None = None
    """Representative result of an earlier run, if this run did not test the model."""
    status: Status = "untested"
    verified_context: int | None = None
    verified_check: VerifyingCheck | None = None
    tiers: DeepTiers | None = None
    """What `deep` has shown besides its verdict, if any size was asked."""
    smallest_bad: int | None = None
    capabilities: tuple[str, ...] = ()
    """Declared by the manifest or the listing of its engine."""
    capability_proofs: dict[str, Proof] = {}
    """What `capability` found last."""
    since: tuple[Since, ...] = ()
    """Since when each check works or fails, the newest result first."""


class RunReport(Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """A run of the plugin."""

    schema: int = 1
    run: str
    """Id of the run, also in its registry lines."""
    started: datetime
    finished: datetime
    machine: str
    """Anonymous id of the machine."""
    versions: dict[str, str]
    exit_status: int
    """pytest's exit status, 0 to 5, including regressions."""
    asked: tuple[str, ...] = ()
    """Selection by `-k`, `-m` and paths; empty for all models."""
    counts: dict[str, int]
    """Outcome -> number of tests."""
    models: tuple[ModelReport, ...]
    cases: tuple[CaseReport, ...]
    updates: tuple[EngineUpdate, ...] = ()
    """Engines with another version than in the run before."""
    changes: tuple[Change, ...] = ()
    """Changes since earlier runs, worst first."""
    variants: tuple[VariantComparison, ...] = ()
    """Models with several combinations of load settings, compared."""
    fail_on_regression: float | None = None
    """Threshold in percent, if regressions fail the run."""

    @cached_property
    def results(self) -> dict[str, list[Result]]:
        """Model id -> its results, in the order of the cases."""
        found: dict[str, list[Result]] = {model.id: [] for model in self.models}
        for case in self.cases:
            for result in case.results:
                found.setdefault(result.model, []).append(result)
        return found

    @cached_property
    def node_ids(self) -> dict[tuple[str, str, int], str]:
        """Model id, check and context length -> node id of the test."""
        return {
            (result.model, result.check, result.context_length): case.node_id
            for case in self.cases
            for result in case.results
        }

    @property
    def tested(self) -> tuple[ModelReport, ...]:
        """Models with results of this run."""
        return tuple(model for model in self.models if self.results[model.id])

    def results_of(self, model: ModelReport) -> list[Result]:
        """Return the results of `model` in this run, else that of an earlier run, if any."""
        return self.results[model.id] or ([model.earlier] if model.earlier else [])

    @property
    def regressions(self) -> tuple[Change, ...]:
        """Changes for the worse that count."""
        return tuple(change for change in self.changes if change.is_regression)


def model_report(
    model: Model,
    results: Sequence[Result],
    status: ModelStatus | None,
    *,
    earlier: Sequence[Result] = (),
    since: tuple[Since, ...] = (),
) -> ModelReport:
    """Return the report of `model`, with its registry `status` after `results`.

    Without `results`, `earlier` results represent the model.
    """
    found = results or earlier
    representative = representative_of(found) if found else None
    known: Mapping[str, Any] = msgspec.structs.asdict(status) if status else {}
    names = ("status", "verified_context", "verified_check", "tiers", "smallest_bad",
             "capability_proofs")  # fmt: skip
    return ModelReport(
        id=model.id,
        engine=model.engine,
        type=model.type or "llm",
        context_limit=model.context_limit,
        size_bytes=model.size_bytes,
        capabilities=model.capabilities,
        verdict=representative.verdict if representative else None,
        earlier=None if results else representative,
        since=since,
        **{name: known[name] for name in names if name in known},
    )


class Judged(Protocol):
    """A result as far as it decides which one represents a model."""

    @property
    def context_length(self) -> int: ...
    @property
    def origin(self) -> Origin: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def outcome(self) -> Outcome: ...


_Judged = TypeVar("_Judged", bound=Judged)


def representative_of(results: Iterable[_Judged]) -> _Judged:
    """Return the result that represents a model: the smallest bad size, else the largest good one.

    Skipped results and errors of hosts count only if no other is bad; results of a size search only
    where there are no others: a failure on the way does not contradict the answer.
    """
    ordered = sorted(results, key=lambda each: each.context_length)
    ordered = [result for result in ordered if result.origin == "case"] or ordered
    bad = [result for result in ordered if result.verdict is not Verdict.OK]
    judged = (result for result in bad if result.outcome not in ("skipped", "error"))
    return next(judged, bad[0] if bad else ordered[-1])


def encode_run(run: RunReport) -> bytes:
    """Return the content of run.json: indented JSON that always includes `schema`."""
    body = {"schema": run.schema} | msgspec.to_builtins(run)
    return msgspec.json.format(msgspec.json.encode(body), indent=1) + b"\n"


def json_schema() -> dict[str, Any]:
    """Return the schema of run.json (JSON Schema 2020-12)."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    schema = {"$schema": dialect, "title": "run.json"} | msgspec.json.schema(RunReport)
    builtins: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schema))
    return builtins
