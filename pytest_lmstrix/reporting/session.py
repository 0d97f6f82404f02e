"""What the controller does with results: the registry first, then everything people look at."""

from __future__ import annotations

import pytest

from pytest_lmstrix.options import Settings
from pytest_lmstrix.outcomes import results_of
from pytest_lmstrix.plan import Plan
from pytest_lmstrix.registry import Registry, RegistryError
from pytest_lmstrix.reporting.figures import counted
from pytest_lmstrix.reporting.html import HtmlColumns
from pytest_lmstrix.reporting.terminal import Row, closing_table
from pytest_lmstrix.types import Result
from pytest_lmstrix.verdicts import Verdict


class Reporting:
    """Registered on the controller, or where there are no workers."""

    def __init__(self, config: pytest.Config, settings: Settings, plan: Plan) -> None:
        self._config = config
        self._settings = settings
        self._plan = plan
        self._registry = Registry(settings.registry)
        self._results: list[Result] = []
        self._wrote = False
        self._session: pytest.Session | None = None
        self._trouble: str | None = None
        if config.pluginmanager.has_plugin("html") and not config.option.collectonly:
            if not config.option.htmlpath:
                config.option.htmlpath = str(settings.reports / "report.html")
                config.option.self_contained_html = True
            config.pluginmanager.register(HtmlColumns(), "lmstrix-html")

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    def pytest_report_header(self) -> str:
        plan = self._plan
        cases = len(plan.cases())
        left_out = f", {len(plan.embedding)} embedding left out" if plan.embedding else ""
        manifest = self._shown(self._settings.models)
        return (
            f"lmstrix: {counted(len(plan.models), 'model')} in {manifest},"
            f" {counted(cases, 'case')}{left_out}"
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for result in results_of(report):
            self._results.append(result)
            if result.verdict is not Verdict.UNREACHABLE and self._trouble is None:
                self._record(result)

    def _record(self, result: Result) -> None:
        """On disk before the next test starts; a run that cannot record ends."""
        try:
            if not self._wrote:
                self._registry.backup()
                self._wrote = True
            self._registry.append(result)
        except RegistryError as error:
            self._trouble = str(error)
            assert self._session is not None
            self._session.shouldfail = f"lmstrix: results cannot be recorded: {error}"

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._results:
            return
        rows = []
        for planned in self._plan.models:
            model = planned.model
            results = tuple(result for result in self._results if result.model == model.id)
            if results:
                status = self._registry.status(model.id)
                rows.append(
                    Row(
                        model=model,
                        results=results,
                        verified=status.verified_context if status else None,
                        first_bad=status.smallest_bad if status else None,
                    )
                )
        writer = terminalreporter._tw  # noqa: SLF001 - the only way to its width and colours
        terminalreporter.ensure_newline()
        terminalreporter.write_line("")
        table = closing_table(rows, width=writer.fullwidth, color=writer.hasmarkup)
        for line in table.splitlines():
            terminalreporter.write_line(line)
        if self._wrote:
            terminalreporter.write_line(f"recorded in {self._shown(self._settings.registry)}")

    def _shown(self, path: object) -> str:
        return str(path).removeprefix(f"{self._config.rootpath}/")
