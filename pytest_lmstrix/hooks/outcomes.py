"""From what a test did to its report: the verdict, its outcome, its figures."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgspec
import pytest

from pytest_lmstrix.checks.attempt import Attempts
from pytest_lmstrix.checks.loader import LoadedModel, ModelLoader
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.sanitize import clean
from pytest_lmstrix.core.types import Case, ProbeResult, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.hooks.collection import case_of, check_name, check_of, check_version
from pytest_lmstrix.hooks.fixtures import results_key

ATTRIBUTE = "lmstrix_results"
"""On a report: its results as builtins, so that they cross to the controller of pytest-xdist."""

REPLIES_SECTION = "replies of the model"

SECTION_LIMIT = 100_000
"""Characters that are kept of what a test printed."""

PROPERTIES = ("model", "context_length", "granted_context_length", "verdict", "load_seconds",
              "ttft_seconds", "prompt_tokens", "prefill_tokens_per_second",
              "decode_tokens_per_second", "peak_memory_bytes")  # fmt: skip
"""Fields of a result that are recorded as properties `lmstrix_<field>`, in JUnit files too."""


_OF_A_REPLY = (AssertionError, pytest.fail.Exception, ValueError, LookupError, TypeError)
"""What a wrong reply, or one that cannot be parsed, leads to; other errors are a test's own."""


class Outcomes:
    """The hooks around a model test in the process that runs it."""

    def __init__(self, loader: ModelLoader, attempts: Attempts) -> None:
        self._loader = loader
        self._attempts = attempts
        self._mark: tuple[LoadedModel | None, int] = None, 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        case = case_of(item)
        trouble = self._loader.unreachable_reason(case.model) if case is not None else None
        if trouble is not None:
            pytest.skip(trouble.explain())
        self._mark = self._attempts.mark()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        outcome = yield
        if not self._shares_load(item, nextitem):
            self._loader.unload()
        self._loader.report_leaks()
        return outcome

    def _shares_load(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        loaded = self._loader.loaded()
        case = case_of(nextitem) if nextitem is not None else None
        if loaded is None or case is None or nextitem is None or case.model != loaded.model:
            return False
        both_deep = check_of(item) == check_of(nextitem) == "deep"
        return both_deep or case.context_length == loaded.asked_context_length

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        case = case_of(item)
        judged = call.when == "call" or (call.when == "setup" and call.excinfo is not None)
        results: list[Result] = []
        if case is not None and judged:
            results = item.stash.get(results_key, []) or self._users_results(item, case, call)
            item.user_properties.extend(properties(results[0]) if results else _asked(case))
        report = yield
        failure = call.excinfo.value if call.excinfo is not None else None
        if isinstance(failure, Failure):
            runxfail = item.config.getoption("runxfail")
            _shorten_failure(report, failure, call, runxfail=runxfail)
        if results:
            _attach(report, results)
        if case is not None:
            _sanitize_report(report)
        return report

    def _users_results(
        self, item: pytest.Item, case: Case, call: pytest.CallInfo[None]
    ) -> list[Result]:
        """What a user's own test showed about the model; nothing if it showed nothing."""
        error = call.excinfo.value if call.excinfo is not None else None
        match error:
            case None:
                finding = ProbeResult(verdict=Verdict.OK)
            case Failure():
                finding = ProbeResult(verdict=error.verdict, detail=error.text)
            case _ if call.when == "setup":
                return []
            case _ if isinstance(error, _OF_A_REPLY):
                detail = f"{type(error).__name__}: {error}"
                finding = ProbeResult(verdict=Verdict.WRONG_ANSWER, detail=detail)
            case _:
                return []
        return [
            self._attempts.result(
                check_name(item, case),
                case,
                finding,
                since=self._mark,
                check_version=check_version(item),
                retried=isinstance(error, Failure) and error.retried,
            )
        ]


def properties(result: Result) -> list[tuple[str, object]]:
    """The figures of `result` as flat scalars."""
    values = ((name, getattr(result, name)) for name in PROPERTIES)
    more: list[tuple[str, object]] = (
        [("lmstrix_notes", "; ".join(result.notes))] if result.notes else []
    )
    if result.retried:
        more.append(("lmstrix_retried", True))
    return more + [(f"lmstrix_{name}", str(value) if name == "verdict" else value)
                    for name, value in values if value is not None]  # fmt: skip


def _asked(case: Case) -> list[tuple[str, object]]:
    """What is known of a test that was skipped or broke before anything was found."""
    return [("lmstrix_model", case.model.id), ("lmstrix_context_length", case.context_length)]


def results_of(report: pytest.TestReport) -> list[Result]:
    """The results that came with a report."""
    return msgspec.convert(getattr(report, ATTRIBUTE, []), list[Result], strict=False)


def attach_results(report: pytest.TestReport, results: list[Result]) -> None:
    """Replace the results that come with a report."""
    setattr(report, ATTRIBUTE, msgspec.to_builtins(results))


def _attach(report: pytest.TestReport, results: list[Result]) -> None:
    attach_results(report, results)
    replies = "\n".join(f"> {line}" for reply in results[0].replies for line in reply.splitlines())
    if replies:
        report.sections.append((REPLIES_SECTION, replies))


def _shorten_failure(
    report: pytest.TestReport, failure: Failure, call: pytest.CallInfo[Any], *, runxfail: bool
) -> None:
    """Report the verdict as what it stands for, without a traceback through the plugin.

    Also when a load in a fixture's set-up failed: pytest's errors are for what is no verdict on a
    model, an unreachable server or an unload that failed.
    """
    if report.outcome != "failed" or call.excinfo is None:
        return
    shown = call.excinfo.getrepr(style="value", chain=False)
    if shown.reprcrash is not None:
        shown.reprcrash.message = failure.explain()
    report.longrepr = shown
    if failure.phase == "unload":
        return
    outcome = failure.verdict.outcome
    report.when = "setup" if outcome == "error" else "call"
    if outcome == "xfailed" and not runxfail:
        report.outcome = "skipped"
        report.wasxfail = failure.explain()
    elif outcome == "skipped":
        path, line, _ = report.location
        report.outcome = "skipped"
        report.longrepr = (path, line or 0, f"Skipped: {failure.explain()}")


def _sanitize_report(report: pytest.TestReport) -> None:
    """What a model said may be in messages, in values of assertions, and in what a test printed."""
    report.sections = [(name, clean(text, SECTION_LIMIT)) for name, text in report.sections]
    report.user_properties = [
        (name, clean(value) if isinstance(value, str) else value)
        for name, value in report.user_properties
    ]
    if hasattr(report, "wasxfail"):
        report.wasxfail = clean(report.wasxfail)
    shown = report.longrepr
    if isinstance(shown, tuple):
        report.longrepr = (*shown[:2], clean(shown[2]))
    parts = getattr(shown, "chain", [(getattr(shown, "reprtraceback", None),
                                      getattr(shown, "reprcrash", None))])  # fmt: skip
    for traceback, crash, *_ in parts:
        if crash is not None:
            crash.message = clean(crash.message)
        for entry in getattr(traceback, "reprentries", ()):
            for lines in (entry, getattr(entry, "reprlocals", None)):
                if lines is not None and hasattr(lines, "lines"):
                    lines.lines = [clean(line) for line in lines.lines]
