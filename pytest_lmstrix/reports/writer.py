"""Writes the reports at the end of a run; a part that fails is left out, the others are kept."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_lmstrix.core.formatting import count_of
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.types import Acceptance, Model, Result
from pytest_lmstrix.hooks.collection import known_left_out
from pytest_lmstrix.hooks.outcomes import results_of
from pytest_lmstrix.options import Settings
from pytest_lmstrix.plan.plan import Plan
from pytest_lmstrix.registry.history.change import Change
from pytest_lmstrix.registry.history.earlier import History
from pytest_lmstrix.registry.history.since import Since
from pytest_lmstrix.registry.history.updates import EngineUpdate, update_text
from pytest_lmstrix.registry.regressions import PERCENT, compare
from pytest_lmstrix.registry.status import VariantComparison, compare_variants, since_of, status_of
from pytest_lmstrix.registry.store import RegistryError
from pytest_lmstrix.reports.files import is_of_run_json, is_summary, replace_file, unwritable_reason
from pytest_lmstrix.reports.html import HtmlGuard, HtmlReport
from pytest_lmstrix.reports.nights.write import INDEX, RUNS, keep_run, write_index
from pytest_lmstrix.reports.overview.variants import variants_table
from pytest_lmstrix.reports.page.fleet import earlier_results
from pytest_lmstrix.reports.recorder import Recorder, display_path
from pytest_lmstrix.reports.run_json import ModelReport, RunReport, encode_run, model_report
from pytest_lmstrix.reports.summary import SUMMARY_MARK, nothing_new, summary
from pytest_lmstrix.reports.terminal import (
    changes_table,
    closing_table,
    opening,
    short_word,
    what_to_do,
)

_Status = tuple[str, str, str | tuple[str, Mapping[str, bool]]]
"""Category, letter and word of a report."""


def check_registry(path: Path) -> None:
    """Check, before any load, that results can be recorded.

    Raises:
        pytest.UsageError: The registry cannot be written.
    """
    if reason := unwritable_reason(path):
        raise pytest.UsageError(f"lmstrix: the registry {path} cannot be written: {reason}")


class Writer:
    """Plugin beside the recorder."""

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        plan: Plan,
        machine: str,
        recorder: Recorder,
    ) -> None:
        self._config = config
        self._settings = settings
        self._plan = plan
        self._machine = machine
        self._recorder = recorder
        self._run: RunReport | None = None
        self._html: HtmlReport | None = None
        self._guard: HtmlGuard | None = None
        reason = unwritable_reason(settings.reports / ".lmstrix")
        self._folder = not reason
        if reason and not config.option.collectonly:
            name = display_path(config, settings.reports)
            recorder.notes.append(f"reports left out: {name} cannot be written: {reason}")
        self._no_html = ""
        """Why there is no report.html, if a plugin that makes it is off."""
        for name in ("html", "metadata"):  # pytest-html needs pytest-metadata
            if not config.pluginmanager.has_plugin(name):
                self._no_html = f"the plugin pytest-{name} is off"
        if not (self._no_html or config.option.collectonly):
            self._prepare_html()

    def _prepare_html(self) -> None:
        own: Path | None = None
        if not self._config.option.htmlpath:
            if not self._folder:
                return
            own = self._settings.reports / "report.html"
            self._config.option.htmlpath = str(own)
            self._config.option.self_contained_html = True
        self._html = HtmlReport(titled=own is not None or self._config.option.lmstrix)
        self._config.pluginmanager.register(self._html, "lmstrix-html")
        self._guard = HtmlGuard(own, self._leave_out, lambda: self._recorder.tested)

    def _leave_out(self, name: str, reason: str) -> None:
        self._recorder.notes.append(f"{name} left out: {reason}")

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        """Catch any error of a part, and note that the part is left out."""
        try:
            yield
        except Exception as error:
            self._leave_out(name, failure_reason(error))

    def pytest_sessionstart(self) -> None:
        if self._guard is not None:
            self._guard.install(self._config.pluginmanager)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the reports, before those of other plugins and the terminal summary."""
        if self._recorder.trouble is not None:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._config.option.collectonly:
            return
        if (reason := self._recorder.nothing_judged()) is not None:
            self._recorder.notes.append(reason)
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        if not self._recorder.tested:
            if known := self._config.stash.get(known_left_out, 0):
                self._add_to_step_summary(lambda: nothing_new(known))
            return
        history, changes, updates = History(), tuple[Change, ...](), tuple[EngineUpdate, ...]()
        percent = self._settings.fail_on_regression
        with self._part("changes"):
            history = self._history()
            now = [result for case in self._recorder.cases for result in case.results]
            changes = compare(now, history, percent=percent or PERCENT)
            updates = history.versions.updates(now)
        if percent is not None and any(change.is_regression for change in changes):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        models: tuple[ModelReport, ...] = ()
        with self._part("models"):
            models = tuple(self._models(history))
        variants: tuple[VariantComparison, ...] = ()
        with self._part("the comparison of variants"):
            variants = self._variants()
        self._run = run = self._build_run(session.exitstatus, models, changes, updates, variants)
        if self._folder:
            self._write_files(run)
        self._add_to_step_summary(lambda: summary(run, _github_links()))
        if self._html is not None:
            with self._part("the overview of report.html"):
                self._html.show(self._plan, run, history, self._part)
        elif self._no_html:
            self._leave_out("report.html", self._no_html)

    def _add_to_step_summary(self, text: Callable[[], str]) -> None:
        if step := os.environ.get("GITHUB_STEP_SUMMARY"):
            with self._part("step summary"), Path(step).open("ab") as file:
                file.write(text().encode())

    def _write_files(self, run: RunReport) -> None:
        reports = self._settings.reports
        with self._part(display_path(self._config, reports / "run.json")):
            replace_file(reports / "run.json", encode_run(run), is_of_run_json)
        with self._part(display_path(self._config, reports / "summary.md")):
            registry = os.path.relpath(self._settings.registry, reports).replace(os.sep, "/")
            names = ("report.html", "run.json")
            text = summary(run, {name: name for name in names} | {"registry": registry})
            replace_file(reports / "summary.md", f"{SUMMARY_MARK}\n{text}".encode(), is_summary)
        with self._part(display_path(self._config, reports / RUNS)):
            keep_run(run, reports)
        with self._part(display_path(self._config, reports / INDEX)):
            written = ("report.html",) if self._html is not None else ()
            write_index(self._recorder.registry, reports, made=run.finished, written=written)

    def _history(self) -> History:
        history = History()
        models = {planned.model.id for planned in self._plan.all_models()}
        for line in self._recorder.registry.lines():
            if isinstance(line, Acceptance):
                history.accept(line)
            elif line.run != self._plan.run:
                history.versions.add(line)
                if line.model in models:
                    history.add(line)
        return history

    def _build_run(
        self,
        exit_status: int | pytest.ExitCode,
        models: tuple[ModelReport, ...],
        changes: tuple[Change, ...],
        updates: tuple[EngineUpdate, ...],
        variants: tuple[VariantComparison, ...],
    ) -> RunReport:
        return RunReport(
            run=self._plan.run,
            started=self._recorder.started,
            finished=datetime.now(UTC),
            machine=self._machine,
            versions={
                "pytest-lmstrix": version("pytest-lmstrix"),
                "pytest": pytest.__version__,
                "python": platform.python_version(),
            },
            exit_status=int(exit_status),
            asked=tuple(self._selection()),
            counts=dict(self._recorder.counts),
            models=models,
            cases=tuple(self._recorder.cases),
            updates=updates,
            changes=changes,
            variants=variants,
            fail_on_regression=self._settings.fail_on_regression,
        )

    def _variants(self) -> tuple[VariantComparison, ...]:
        """Compare the variants of each model of which this run tested one."""
        tested = {each.model for case in self._recorder.cases for each in case.results}
        models = [planned.model for planned in self._plan.models]
        names = {model.variant_of for model in models if model.id in tested}
        registry = self._recorder.registry
        return compare_variants(
            (model, status_of(registry, model))
            for model in models
            if model.variant_of is not None and model.variant_of in names
        )

    def _selection(self) -> Iterator[str]:
        for option, expression in (
            ("-k", self._config.option.keyword),
            ("-m", self._config.option.markexpr),
        ):
            if expression:
                yield f"{option} {one_line(expression, 500)}"
        if self._config.args_source is pytest.Config.ArgsSource.ARGS:
            yield from (one_line(display_path(self._config, arg)) for arg in self._config.args)

    def _models(self, history: History) -> Iterator[ModelReport]:
        """Yield all models; those not tested in this run with their earlier results.

        Of the embedding models, those with results.
        """
        found: dict[str, list[Result]] = {}
        for case in self._recorder.cases:
            for result in case.results:
                found.setdefault(result.model, []).append(result)
        for model in (planned.model for planned in self._plan.all_models()):
            results = found.get(model.id, [])
            earlier = earlier_results(model, history, self._machine)
            if results or earlier or model.type != "embedding":
                yield self._model(model, results, earlier)

    def _model(
        self, model: Model, results: Sequence[Result], earlier: Sequence[Result]
    ) -> ModelReport:
        newest = next(iter((*results[-1:], *earlier[-1:])), None)
        status, since = None, tuple[Since, ...]()
        if newest is not None:
            alike = [old for old in earlier if old.settings == newest.settings]
            earlier = list({(old.check, old.context_length): old for old in alike}.values())
            with self._part(f"what is known of {one_line(model.id)}"):
                status = self._recorder.registry.status(
                    model.id,
                    engine=newest.engine,
                    fingerprint=newest.fingerprint,
                    settings=newest.settings,
                )
                weights = status.fingerprint if status else newest.fingerprint
                since = since_of(self._recorder.registry, model, weights)
        return model_report(model, results, status, earlier=earlier, since=since)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(
        self, report: pytest.CollectReport | pytest.TestReport, config: pytest.Config
    ) -> Generator[None, _Status | None, _Status | None]:
        """Keep the verdict in the short summary line of a test with a long name."""
        status = yield
        results = results_of(report) if isinstance(report, pytest.TestReport) else []
        words = ("FAILED", "ERROR")
        if status is None or not results or status[2] not in words:
            return status  # `None` without pytest's own plugin `terminal`
        if config.get_verbosity() >= 2:
            return status
        width = config.get_terminal_writer().fullwidth
        word = short_word(str(status[2]), results[0].verdict, report.nodeid, width)
        return (*status[:2], word)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        writer = terminalreporter._tw
        terminalreporter.ensure_newline()
        width = writer.fullwidth if terminalreporter.isatty else None

        def paint(text: str, colour: str) -> str:
            return writer.markup(text, **{colour: True}) if colour else text

        def show(lines: Iterable[str]) -> None:
            for number, line in enumerate(lines):
                terminalreporter.write_line(line if number else f"\n{line}")

        run = self._run
        if run is not None and run.tested:
            with self._part("the headline"):
                show(opening(run, width=width, paint=paint))
            for update in run.updates:
                terminalreporter.write_line(f"lmstrix: {update_text(update)}")
            if run.changes:
                with self._part("the table of changes"):
                    show(changes_table(run, width=width, paint=paint))
            with self._part("what to do"):
                show(what_to_do(run, width=width, paint=paint))
            with self._part("the table of models"):
                show(closing_table(run, width=width, paint=paint))
            for comparison in run.variants:
                with self._part("the comparison of variants"):
                    show(variants_table(comparison, width=width, paint=paint))
        if run is not None and run.regressions and run.fail_on_regression is not None:
            regressions = count_of(len(run.regressions), "regression")
            terminalreporter.write_line(f"lmstrix: {regressions} failed this run", red=True)
        for note in self._recorder.notes:
            terminalreporter.write_line(f"lmstrix: {note}", red=True)
        if self._recorder.wrote and self._recorder.trouble is None:
            path = display_path(self._config, self._settings.registry)
            terminalreporter.write_line(f"recorded in {path}")


def failure_reason(error: Exception) -> str:
    """Return one line on why a part of the reports is missing."""
    if isinstance(error, RegistryError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return one_line(f"{type(error).__name__}: {error}", 300)


def _github_links() -> dict[str, str]:
    """Return the link from a job summary to the artifacts of the job."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (os.environ.get(name) for name in names)
    if not (server and repository and run):
        return {}
    return {"reports of this run": f"{server}/{repository}/actions/runs/{run}#artifacts"}
