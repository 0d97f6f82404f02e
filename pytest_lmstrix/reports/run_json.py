"""A run as data: what every report shows, and reports/run.json for machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec
from msgspec import Struct

from pytest_lmstrix.core.types import Model, Result
from pytest_lmstrix.core.verdicts import Status, Verdict
from pytest_lmstrix.registry.fold import ModelStatus, VerifyingCheck
from pytest_lmstrix.registry.regressions import Change


class CaseReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One test."""

    node_id: str
    outcome: str
    """As pytest counts it: passed, failed, error, skipped, xfailed, xpassed."""
    reason: str = ""
    """Why it did not pass."""
    results: tuple[Result, ...] = ()
    """What it found, its own case first; empty when it was not judged."""


class ModelReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model that was tested, and what is known of it now; sizes in tokens."""

    id: str
    engine: str
    context_limit: int | None = None
    """Declared maximum."""
    size_bytes: int | None = None
    verdict: Verdict | None = None
    """Of the smallest size that is not `ok`, else `ok`; `null` where it was never tested."""
    earlier: Result | None = None
    """The result of an earlier run that represents it, where this run did not test it."""
    status: Status = "untested"
    verified_context: int | None = None
    verified_check: VerifyingCheck | None = None
    smallest_bad: int | None = None


class RunReport(Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """A run of the plugin."""

    schema: int = 1
    run: str
    """Identifies the run; results in the registry carry it too."""
    started: datetime
    finished: datetime
    machine: str
    """Identifies the machine without naming it."""
    versions: dict[str, str]
    exit_status: int
    """Of pytest, 0 to 5; regressions included."""
    asked: tuple[str, ...] = ()
    """The selection of this run, as `-k`, `-m` and paths; empty for the whole fleet."""
    counts: dict[str, int]
    """Outcome -> tests."""
    models: tuple[ModelReport, ...]
    cases: tuple[CaseReport, ...]
    changes: tuple[Change, ...] = ()
    """Against earlier runs, the worst first."""
    fail_on_regression: float | None = None
    """Percent, if regressions fail the run."""

    @cached_property
    def results(self) -> dict[str, list[Result]]:
        """The results of each model, in their order."""
        found: dict[str, list[Result]] = {model.id: [] for model in self.models}
        for case in self.cases:
            for result in case.results:
                found.setdefault(result.model, []).append(result)
        return found

    @cached_property
    def node_ids(self) -> dict[tuple[str, str, int], str]:
        """Model, check and context length -> the test that judged it."""
        return {
            (result.model, result.check, result.context_length): case.node_id
            for case in self.cases
            for result in case.results
        }

    @property
    def tested(self) -> tuple[ModelReport, ...]:
        """The models with results of this run."""
        return tuple(model for model in self.models if self.results[model.id])

    def results_of(self, model: ModelReport) -> list[Result]:
        """The results of `model` in this run, else the one of an earlier run, if any."""
        return self.results[model.id] or ([model.earlier] if model.earlier else [])

    @property
    def regressions(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.is_regression)


def model_report(
    model: Model,
    results: Sequence[Result],
    status: ModelStatus | None,
    *,
    earlier: Sequence[Result] = (),
) -> ModelReport:
    """Return the report of `model`; `status` comes from the registry, with these results.

    The `earlier` results represent it where there are no `results`.
    """
    found = results or earlier
    representative = telling(found) if found else None
    known: Mapping[str, Any] = msgspec.structs.asdict(status) if status else {}
    names = ("status", "verified_context", "verified_check", "smallest_bad")
    return ModelReport(
        id=model.id,
        engine=model.engine,
        context_limit=model.context_limit,
        size_bytes=model.size_bytes,
        verdict=representative.verdict if representative else None,
        earlier=None if results else representative,
        **{name: known[name] for name in names if name in known},
    )


def telling(results: Iterable[Result]) -> Result:
    """The result that stands for all of a model: the smallest that is bad, else the largest.

    What could not be judged stands for it only where nothing is bad, and what was only tried on
    the way to another size only where there is nothing else.
    """
    ordered = sorted(results, key=lambda each: (each.origin == "search", each.context_length))
    bad = [result for result in ordered if result.verdict is not Verdict.OK]
    judged = (result for result in bad if result.outcome != "skipped")
    good = [result for result in ordered if result.origin == "case"] or ordered
    return next(judged, bad[0] if bad else good[-1])


def encode_run(run: RunReport) -> bytes:
    """For reports/run.json: indented, `schema` always in it."""
    body = {"schema": run.schema} | msgspec.to_builtins(run)
    return msgspec.json.format(msgspec.json.encode(body), indent=1) + b"\n"


def json_schema() -> dict[str, Any]:
    """Of run.json, as JSON Schema 2020-12."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    schema = {"$schema": dialect, "title": "run.json"} | msgspec.json.schema(RunReport)
    builtins: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schema))
    return builtins
