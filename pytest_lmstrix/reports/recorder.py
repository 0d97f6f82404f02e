"""Records results on the controller as they arrive: in the registry, then as cases."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from pytest_lmstrix.checks.advice import advice_for
from pytest_lmstrix.core.failure import DID_YOU_MEAN, MESSAGE_LIMIT, Failure
from pytest_lmstrix.core.formatting import count_of
from pytest_lmstrix.core.sanitize import clean, one_line
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.hooks.collection import ascii_id
from pytest_lmstrix.hooks.outcomes import attach_results, results_of
from pytest_lmstrix.hooks.xdist.controller import end_run
from pytest_lmstrix.options import Settings
from pytest_lmstrix.plan.plan import Plan
from pytest_lmstrix.progress.live_display import LiveDisplay
from pytest_lmstrix.registry.store import Registry, RegistryError
from pytest_lmstrix.reports.run_json import CaseReport

_NOT_JUDGED = (Verdict.MODEL_NOT_FOUND, Verdict.UNREACHABLE, Verdict.HOST_TROUBLE)
_REASONS = 3
"""Models whose reasons are in the line of a run that judged none."""
RERUN_OUTCOMES = ("rerun", "retried")
"""Outcomes of pytest-rerunfailures and pytest-retry that another try follows."""


class Recorder:
    """Plugin of the controller, or of the only process."""

    def __init__(
        self, config: pytest.Config, settings: Settings, plan: Plan, registry: Registry
    ) -> None:
        self._config = config
        self._settings = settings
        self._plan = plan
        self.registry = registry
        self.notes = list(self._flaws())
        self.cases: list[CaseReport] = []
        self.counts: Counter[str] = Counter()
        self.started = datetime.now(UTC)
        self.wrote = False
        self.tested = False
        """Whether a test of a model has run."""
        self._unjudged: dict[str, Result] = {}
        """Models that are missing, or whose host was the trouble -> their first result."""
        self._judged = False
        self._tries: Counter[str] = Counter()
        self._session: pytest.Session | None = None
        self.trouble: str | None = None
        """Why recording stopped."""
        display = config.pluginmanager.get_plugin("lmstrix-live")
        if isinstance(display, LiveDisplay):
            display.expected = self._expected

    def _flaws(self) -> Iterator[str]:
        """Load the registry, and yield its problems."""
        loaded = self.registry.load()
        name = display_path(self._config, self.registry.path)
        if loaded.damaged:
            lines = count_of(len(loaded.damaged), "damaged line")
            aside = f", copied to {loaded.set_aside.name}" if loaded.set_aside else ""
            yield f"{name}: {lines} left out{aside}; see --lmstrix-health"
        if loaded.newer:
            lines = count_of(len(loaded.newer), "line")
            yield f"{name}: {lines} of a newer pytest-lmstrix left out"

    def _expected(self, tests: Iterable[str]) -> dict[str, float]:
        """Return node id -> seconds that its load and prefill took in the last run."""
        took = {each.model.id: self._took(each.model.id) for each in self._plan.all_models()}
        planned = (*self._plan.cases(), *self._plan.embedding_cases())
        cases = {f"{ascii_id(case.id)}]": case for case in planned if took[case.model.id]}
        expected = {}
        for test in tests if cases else ():
            name, _, parameters = test.partition("[")
            case = cases.get(parameters)
            if case is None:
                continue
            key = name.rpartition("::test_")[2], case.context_length
            if key in took[case.model.id]:
                expected[test] = took[case.model.id][key]
        return expected

    def _took(self, model: str) -> dict[tuple[str, int], float]:
        try:
            newest_last = reversed(self.registry.known(model))
        except RegistryError:
            return {}
        return {
            (line.check, line.context_length): line.load_seconds + (line.ttft_seconds or 0.0)
            for line in newest_last
            if line.load_seconds is not None
        }

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    def pytest_report_header(self) -> list[str]:
        plan = self._plan
        cases = len(plan.cases())
        embedding = count_of(len(plan.embedding), "embedding model")
        manifest = display_path(self._config, self._settings.models)
        models = count_of(len(plan.models), "model")
        return [
            f"lmstrix: {models} in {manifest}, {count_of(cases, 'case')}"
            + (f", {embedding}" if plan.embedding else ""),
            *(f"lmstrix: {note}" for note in self.notes),
        ]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.tested |= any(name == "lmstrix_model" for name, _ in report.user_properties)
        results = self._with_tries(report)
        for result in results:
            if result.verdict in _NOT_JUDGED:
                self._unjudged.setdefault(result.model, result)
            else:
                self._judged = True
            if result.verdict is not Verdict.UNREACHABLE and self.trouble is None:
                self._record(result)
        results = self._without_withdrawn(results)
        if outcome := self._outcome(report):
            self.counts[outcome] += 1
        if report.outcome in RERUN_OUTCOMES:
            self._tries[report.nodeid] += 1
        elif outcome or results:
            self.cases.append(
                CaseReport(
                    node_id=report.nodeid,
                    outcome=outcome,
                    reason=_reason(report, results),
                    results=results,
                )
            )

    def nothing_judged(self) -> str | None:
        """Return one line on why not one model was judged, if so."""
        if self._judged or not self._unjudged:
            return None
        found = Counter(result.verdict for result in self._unjudged.values())
        counts = ", ".join(
            f"{count_of(count, 'model')}: {verdict}" for verdict, count in found.items()
        )
        reasons = [f"{each.model}: {_hint(each)}" for each in self._unjudged.values()]
        more = f"; ... {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else ""
        return one_line(
            f"no model was judged ({counts}): {'; '.join(reasons[:_REASONS])}{more}", 500
        )

    def _without_withdrawn(self, results: tuple[Result, ...]) -> tuple[Result, ...]:
        """Replace results of earlier cases that are `host_trouble` now; return the other ones."""
        trouble = (each for each in results[1:] if each.verdict is Verdict.HOST_TROUBLE)
        now = {_place(each): each for each in trouble}
        if not now:
            return results
        found: set[object] = set()
        for number, case in enumerate(self.cases):
            if hit := now.keys() & {_place(each) for each in case.results}:
                found |= hit
                replaced = tuple(
                    replace(now.get(_place(each), each), origin=each.origin)
                    for each in case.results
                )
                self.cases[number] = replace(case, results=replaced)
        return tuple(each for each in results if _place(each) not in found)

    def _with_tries(self, report: pytest.TestReport) -> tuple[Result, ...]:
        """Return the results of `report`; add a note to a pass after reruns."""
        results = results_of(report)
        tries = self._tries[report.nodeid] + 1
        if tries > 1 and results and results[0].verdict is Verdict.OK:
            notes = (*results[0].notes, f"passed on try {tries}")
            results[0] = replace(results[0], notes=notes)
            attach_results(report, results)
        return tuple(results)

    def _outcome(self, report: pytest.TestReport) -> str:
        """Return pytest's category for `report`; empty if it is not counted."""
        hook = self._config.hook.pytest_report_teststatus
        status: tuple[str, object, object] | None = hook(report=report, config=self._config)
        if status is not None:
            return status[0]
        counts = report.when == "call" or not report.passed  # without pytest's terminal reporter
        return report.outcome if counts else ""

    def _record(self, result: Result) -> None:
        """Write `result` to the registry before the next test; on failure, end the run."""
        try:
            if not self.wrote:
                self.registry.backup()
                self.wrote = True
            self.registry.append(result)
        except RegistryError as error:
            self.trouble = f"results cannot be recorded: {error}"
            self.notes.append(self.trouble)
            assert self._session is not None
            end_run(self._session, f"lmstrix: {self.trouble}")


def _hint(result: Result) -> str:
    """Of a message, the similar ids that it names, or its first line."""
    lines = result.detail.splitlines() or [str(result.verdict)]
    return next((line for line in lines if line.startswith(DID_YOU_MEAN)), lines[0])


def _place(result: Result) -> object:
    return result.model, result.check, result.context_length


def _reason(report: pytest.TestReport, results: tuple[Result, ...]) -> str:
    """Return why the test did not pass."""
    if report.passed and not hasattr(report, "wasxfail"):
        return ""
    if results:
        failure = Failure(results[0].detail, verdict=results[0].verdict)
        failure.advice = advice_for(results[0])
        return failure.explain()
    text: str = getattr(report, "wasxfail", "")
    if not text and isinstance(report.longrepr, tuple):
        text = report.longrepr[2].removeprefix("Skipped: ")
    return clean(text or report.longreprtext, MESSAGE_LIMIT)


def display_path(config: pytest.Config, path: object) -> str:
    """Return `path`, relative to the project root if inside it."""
    return str(path).removeprefix(f"{config.rootpath}{os.sep}")
