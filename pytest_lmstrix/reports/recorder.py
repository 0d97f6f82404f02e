"""What the controller does with results: the registry first, then everything people look at."""

from __future__ import annotations

import contextlib
import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_lmstrix.core.failure import MESSAGE_LIMIT, Failure
from pytest_lmstrix.core.formatting import counted
from pytest_lmstrix.core.sanitize import clean
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.hooks.collection import ascii_id
from pytest_lmstrix.hooks.outcomes import results_of
from pytest_lmstrix.hooks.xdist import end_run
from pytest_lmstrix.options import Settings
from pytest_lmstrix.plan.plan import Plan
from pytest_lmstrix.progress.live import Shown
from pytest_lmstrix.registry.regressions import PERCENT, Change, History, compare
from pytest_lmstrix.registry.store import ModelStatus, Registry, RegistryError
from pytest_lmstrix.reports.html import HtmlReport
from pytest_lmstrix.reports.run_json import (
    CaseReport,
    ModelReport,
    RunReport,
    encode_run,
    model_report,
)
from pytest_lmstrix.reports.summary import summary
from pytest_lmstrix.reports.terminal import changes_table, closing_table


class Reporting:
    """Registered on the controller, or where there are no workers."""

    def __init__(self, config: pytest.Config, settings: Settings, plan: Plan, machine: str) -> None:
        self._config = config
        self._settings = settings
        self._plan = plan
        self._machine = machine
        self._registry = Registry(settings.registry)
        self._notes = list(self._flaws())
        self._cases: list[CaseReport] = []
        self._counts: Counter[str] = Counter()
        self._started = datetime.now(UTC)
        self._wrote = False
        self._session: pytest.Session | None = None
        self._trouble: str | None = None
        """Why nothing more is recorded."""
        self._run: RunReport | None = None
        self._html: HtmlReport | None = None
        shown = config.pluginmanager.get_plugin("lmstrix-live")
        if isinstance(shown, Shown):
            shown.expected = self._expected
        if config.pluginmanager.has_plugin("html") and not config.option.collectonly:
            if not config.option.htmlpath:
                config.option.htmlpath = str(settings.reports / "report.html")
                config.option.self_contained_html = True
            self._html = HtmlReport(plan)
            config.pluginmanager.register(self._html, "lmstrix-html")

    def _flaws(self) -> Iterator[str]:
        """What is wrong with the registry, whose damaged lines are copied aside."""
        loaded = self._registry.load()
        name = self._shown(self._registry.path)
        if loaded.damaged:
            lines = counted(len(loaded.damaged), "damaged line")
            aside = f", copied to {loaded.set_aside.name}" if loaded.set_aside else ""
            yield f"{name}: {lines} left out{aside}; see --lmstrix-health"
        if loaded.newer:
            lines = counted(len(loaded.newer), "line")
            yield f"{name}: {lines} of a newer pytest-lmstrix left out"

    def _expected(self, tests: Iterable[str]) -> dict[str, float]:
        """Seconds that loading and prefilling took when it was last done, by node id."""
        cases = {f"{ascii_id(case.id)}]": case for case in self._plan.cases()}
        took: dict[str, dict[tuple[str, int], float]] = {}
        expected = {}
        for test in tests:
            name, _, parameters = test.partition("[")
            case = cases.get(parameters)
            if case is None:
                continue
            model = case.model.id
            if model not in took:
                took[model] = self._took(model)
            key = name.rpartition("::test_")[2], case.context_length
            if key in took[model]:
                expected[test] = took[model][key]
        return expected

    def _took(self, model: str) -> dict[tuple[str, int], float]:
        try:
            newest_last = reversed(self._registry.known(model))
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
        left_out = f", {len(plan.embedding)} embedding left out" if plan.embedding else ""
        manifest = self._shown(self._settings.models)
        models = counted(len(plan.models), "model")
        return [
            f"lmstrix: {models} in {manifest}, {counted(cases, 'case')}{left_out}",
            *(f"lmstrix: {note}" for note in self._notes),
        ]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        results = tuple(results_of(report))
        for result in results:
            if result.verdict.evidence != "none" and self._trouble is None:
                self._record(result)
        if outcome := self._outcome(report):
            self._counts[outcome] += 1
        if outcome or results:
            self._cases.append(
                CaseReport(
                    node_id=report.nodeid,
                    outcome=outcome,
                    reason=_reason(report, results),
                    results=results,
                )
            )

    def _outcome(self, report: pytest.TestReport) -> str:
        """As pytest counts it; empty for what it does not count."""
        hook = self._config.hook.pytest_report_teststatus
        status: tuple[str, object, object] | None = hook(report=report, config=self._config)
        if status is not None:
            return status[0]
        counts = report.when == "call" or not report.passed  # without pytest's terminal reporter
        return report.outcome if counts else ""

    def _record(self, result: Result) -> None:
        """On disk before the next test starts; a run that cannot record ends."""
        try:
            if not self._wrote:
                self._registry.backup()
                self._wrote = True
            self._registry.append(result)
        except RegistryError as error:
            self._trouble = f"results cannot be recorded: {error}"
            self._notes.append(self._trouble)
            assert self._session is not None
            end_run(self._session, f"lmstrix: {self._trouble}")

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Before the reports of other plugins, and before the terminal's summary."""
        if self._trouble is not None:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._config.option.collectonly:
            return
        history, changes = self._compared()
        percent = self._settings.fail_on_regression
        if percent is not None and any(change.is_regression for change in changes):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        self._run = run = self._made(int(session.exitstatus), changes)
        reports = self._settings.reports
        links = {name: name for name in ("report.html", "run.json")} | {
            "registry": os.path.relpath(self._settings.registry, reports).replace(os.sep, "/")
        }
        self._write(reports / "run.json", encode_run(run))
        self._write(reports / "summary.md", summary(run, links).encode())
        if step := os.environ.get("GITHUB_STEP_SUMMARY"):
            self._write(Path(step), summary(run, _github_links()).encode(), append=True)
        if self._html is not None:
            self._html.show(run, history)

    def _compared(self) -> tuple[History, tuple[Change, ...]]:
        history = History()
        models = {planned.model.id for planned in self._plan.models}
        try:
            for result in self._registry.results():
                if result.model in models and result.run != self._plan.run:
                    history.add(result)
        except RegistryError as error:
            self._notes.append(f"not compared with earlier runs: {error}")
        now = (result for case in self._cases for result in case.results)
        return history, compare(now, history, percent=self._settings.fail_on_regression or PERCENT)

    def _made(self, exit_status: int, changes: tuple[Change, ...]) -> RunReport:
        return RunReport(
            run=self._plan.run,
            started=self._started,
            finished=datetime.now(UTC),
            machine=self._machine,
            versions={
                "pytest-lmstrix": version("pytest-lmstrix"),
                "pytest": pytest.__version__,
                "python": platform.python_version(),
            },
            exit_status=exit_status,
            counts=dict(self._counts),
            models=tuple(self._models()),
            cases=tuple(self._cases),
            changes=changes,
            fail_on_regression=self._settings.fail_on_regression,
        )

    def _models(self) -> list[ModelReport]:
        found: dict[str, list[Result]] = {}
        for case in self._cases:
            for result in case.results:
                found.setdefault(result.model, []).append(result)
        reports = []
        for planned in self._plan.models:
            model = planned.model
            results = found.get(model.id)
            if results:
                reports.append(model_report(model, results, self._status(results[-1])))
        return reports

    def _status(self, result: Result) -> ModelStatus | None:
        """What is known now of the weights and settings of `result`."""
        with contextlib.suppress(RegistryError):  # which was told of already
            return self._registry.status(
                result.model,
                engine=result.engine,
                fingerprint=result.fingerprint,
                settings=result.settings,
            )
        return None

    def _write(self, path: Path, data: bytes, *, append: bool = False) -> None:
        """A report that cannot be written is told of, and costs nothing else."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab" if append else "wb") as file:
                file.write(data)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            self._notes.append(f"{self._shown(path)} cannot be written: {reason}")

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        run = self._run
        writer = terminalreporter._tw
        terminalreporter.ensure_newline()

        def paint(text: str, colour: str) -> str:
            return writer.markup(text, **{colour: True}) if colour else text

        def show(lines: Iterable[str]) -> None:
            terminalreporter.write_line("")
            for line in lines:
                terminalreporter.write_line(line)

        if run is not None and run.models:
            show(closing_table(run, width=writer.fullwidth, paint=paint))
            if run.changes:
                show(changes_table(run.changes, width=writer.fullwidth, paint=paint))
        if run is not None and run.regressions and run.fail_on_regression is not None:
            regressions = counted(len(run.regressions), "regression")
            terminalreporter.write_line(f"lmstrix: {regressions} failed this run", red=True)
        for note in self._notes:
            terminalreporter.write_line(f"lmstrix: {note}", red=True)
        if self._wrote and self._trouble is None:
            terminalreporter.write_line(f"recorded in {self._shown(self._settings.registry)}")

    def _shown(self, path: object) -> str:
        return str(path).removeprefix(f"{self._config.rootpath}{os.sep}")


def _reason(report: pytest.TestReport, results: tuple[Result, ...]) -> str:
    """Why it did not pass."""
    if report.passed and not hasattr(report, "wasxfail"):
        return ""
    if results:
        return Failure(results[0].detail, verdict=results[0].verdict).explain()
    text: str = getattr(report, "wasxfail", "")
    if not text and isinstance(report.longrepr, tuple):
        text = report.longrepr[2].removeprefix("Skipped: ")
    return clean(text or report.longreprtext, MESSAGE_LIMIT)


def _github_links() -> dict[str, str]:
    """From the summary of a job to its artifacts."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (os.environ.get(name) for name in names)
    if not (server and repository and run):
        return {}
    return {"reports of this run": f"{server}/{repository}/actions/runs/{run}#artifacts"}
