"""Turns results of model tests into reports: verdict, outcome, measurements."""

from __future__ import annotations

import re
from collections.abc import Generator
from traceback import walk_tb
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from pytest_lmstrix.checks.advice import advice_for
from pytest_lmstrix.checks.attempt import Attempts
from pytest_lmstrix.checks.case_memory import CaseMemory
from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.sanitize import clean
from pytest_lmstrix.core.types import Case, ProbeResult, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.hooks.collection import ONE_LOAD, case_of, check_name, check_of, check_version
from pytest_lmstrix.hooks.fixtures import results_key
from pytest_lmstrix.hooks.samples import TooFewPassed, samples_key
from pytest_lmstrix.hooks.xdist.pauses import is_stand_in
from pytest_lmstrix.plan.plan import Plan

ATTRIBUTE = "lmstrix_results"
"""Attribute of reports: results as builtins, which pytest-xdist can transfer."""

REPLIES_SECTION = "replies of the model"

SECTION_LIMIT = 100_000
"""Longest captured output kept, in characters."""

PROPERTIES = ("model", "host", "context_length", "granted_context_length", "verdict",
              "load_seconds", "ttft_seconds", "prompt_tokens", "prefill_tokens_per_second",
              "decode_tokens_per_second", "peak_memory_bytes",
              "estimated_memory_bytes", "samples", "passed_samples")  # fmt: skip
"""Fields of a result recorded as properties `lmstrix_<field>`, also in JUnit files."""


_ASSERTED = (AssertionError, pytest.fail.Exception)
_PARSED = (ValueError, LookupError, TypeError)
"""What a reply that cannot be parsed leads to."""
_WRONG_CALL = re.compile(
    r"\w\(\) (?:got |missing |takes )|(?:positional|keyword) arguments?\b|is not callable"
)
"""The words of a `TypeError` about the arguments of a call."""


class Outcomes:
    """Hooks around model tests, in the process that runs them."""

    def __init__(
        self,
        loader: ModelLoader,
        attempts: Attempts,
        plan: Plan,
        unfit: CaseMemory | None = None,
    ) -> None:
        """Cases that do not fit by `plan` or `unfit` are skipped."""
        self._planned = {each.model.id: each for each in plan.all_models()}
        self._unfit = unfit
        self._loader = loader
        self._attempts = attempts
        self._mark: tuple[LoadedModel | None, int] = None, 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        case = case_of(item)
        if case is not None:
            # The larger sizes are a part of what `limit` tries.
            least = 1 if check_of(item) == "limit" else case.context_length
            reason = self._planned[case.model.id].why_unfit(least)
            if reason is not None:
                pytest.skip(reason)
            self._loader.choose_host(case.model)
            trouble = self._loader.unreachable_reason(case.model)
            if trouble is not None:
                pytest.skip(trouble.explain())
            self._skip_unfit(case)
        self._mark = self._attempts.mark()

    def _skip_unfit(self, case: Case) -> None:
        loaded = self._loader.loaded()
        if self._unfit is None or (loaded is not None and loaded.model == case.model):
            return  # what is loaded takes memory that is not free
        reason = self._unfit.why_unfit(case)
        if reason is not None:
            pytest.skip(reason)

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
        if loaded is None or nextitem is None or is_stand_in(nextitem):
            return False
        case = case_of(nextitem)
        if case is None or case.model != loaded.model:
            return False
        shared = check_of(item) == check_of(nextitem) and check_of(item) in ONE_LOAD
        return shared or loaded.serves(case.model, case.context_length)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        case = case_of(item)
        judged = call.when == "call" or (call.when == "setup" and call.excinfo is not None)
        results: list[Result] = []
        if case is not None and judged:
            results = item.stash.get(results_key, []) or self._result_of_user_test(item, case, call)
            results = [*results, *self._attempts.take_withdrawn()]
            item.user_properties.extend(
                properties(results[0]) if results else _case_properties(case)
            )
        report = yield
        failure = call.excinfo.value if call.excinfo is not None else None
        if isinstance(failure, Failure):
            if results and results[0].verdict is Verdict.HOST_TROUBLE:
                failure.text, failure.verdict = results[0].detail, results[0].verdict
            if results and results[0].verdict is failure.verdict:
                failure.advice = advice_for(results[0])
            runxfail = item.config.getoption("runxfail")
            _shorten_failure(report, failure, call, runxfail=runxfail)
        if results:
            _attach(report, results)
        if case is not None:
            _sanitize_report(report)
        return report

    def _result_of_user_test(
        self, item: pytest.Item, case: Case, call: pytest.CallInfo[None]
    ) -> list[Result]:
        """Return the result of a user's test; empty if it has no verdict on the model."""
        error = call.excinfo.value if call.excinfo is not None else None
        match error:
            case None:
                finding = ProbeResult(verdict=Verdict.OK)
            case Failure():
                finding = error.as_finding()
            case _ if call.when == "setup":
                return []
            case TooFewPassed():
                finding = ProbeResult(verdict=Verdict.WRONG_ANSWER, detail=str(error))
            case _ if self.is_of_a_reply(error):
                detail = f"{type(error).__name__}: {error}"
                finding = ProbeResult(verdict=Verdict.WRONG_ANSWER, detail=detail)
            case _:
                return []
        count = item.stash.get(samples_key, None)
        if count is not None:
            finding = replace(
                finding,
                detail=finding.detail or str(count),
                samples=count.passed.samples,
                passed_samples=count.passed.passed,
                required_samples=count.required,
            )
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

    def is_of_a_reply(self, error: BaseException) -> bool:
        """Whether a wrong reply led to `error`, and not a mistake in the test."""
        if isinstance(error, _ASSERTED):
            return True
        loaded, count = self._attempts.mark()
        replied = count > (self._mark[1] if loaded is self._mark[0] else 0)
        wrong_call = isinstance(error, TypeError) and _WRONG_CALL.search(str(error))
        return isinstance(error, _PARSED) and replied and not wrong_call and not _in_plugin(error)


def _in_plugin(error: BaseException) -> bool:
    """Whether this package, called by the test, raised `error`."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] == __name__.partition(".")[0]


def properties(result: Result) -> list[tuple[str, object]]:
    """Return the measurements of `result` as named scalars."""
    values = ((name, getattr(result, name)) for name in PROPERTIES)
    more: list[tuple[str, object]] = (
        [("lmstrix_notes", "; ".join(result.notes))] if result.notes else []
    )
    if result.retried:
        more.append(("lmstrix_retried", True))
    return more + [(f"lmstrix_{name}", str(value) if name == "verdict" else value)
                    for name, value in values if value is not None]  # fmt: skip


def _case_properties(case: Case) -> list[tuple[str, object]]:
    """Return the properties of a test without a result."""
    return [("lmstrix_model", case.model.id), ("lmstrix_context_length", case.context_length)]


def results_of(report: pytest.TestReport) -> list[Result]:
    """Return the results attached to a report."""
    return msgspec.convert(getattr(report, ATTRIBUTE, []), list[Result], strict=False)


def attach_results(report: pytest.TestReport, results: list[Result]) -> None:
    """Replace the results attached to a report."""
    setattr(report, ATTRIBUTE, msgspec.to_builtins(results))


def _attach(report: pytest.TestReport, results: list[Result]) -> None:
    attach_results(report, results)
    replies = "\n".join(f"> {line}" for reply in results[0].replies for line in reply.splitlines())
    if replies:
        report.sections.append((REPLIES_SECTION, replies))


def _shorten_failure(
    report: pytest.TestReport, failure: Failure, call: pytest.CallInfo[Any], *, runxfail: bool
) -> None:
    """Report the verdict's outcome, without a traceback through the plugin.

    A load that fails in a fixture also counts as its verdict; pytest's errors are for failures of
    other parts, such as an unreachable server or a failed unload.
    """
    if report.outcome != "failed" or call.excinfo is None:
        return
    text = call.excinfo.getrepr(style="value", chain=False)
    if text.reprcrash is not None:
        text.reprcrash.message = failure.explain()
    report.longrepr = text
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
    """Sanitize messages, assertion values and captured output, which may contain replies."""
    report.sections = [(name, clean(text, SECTION_LIMIT)) for name, text in report.sections]
    report.user_properties = [
        (name, clean(value) if isinstance(value, str) else value)
        for name, value in report.user_properties
    ]
    if hasattr(report, "wasxfail"):
        report.wasxfail = clean(report.wasxfail)
    text = report.longrepr
    if isinstance(text, tuple):
        report.longrepr = (*text[:2], clean(text[2]))
    parts = getattr(text, "chain", [(getattr(text, "reprtraceback", None),
                                     getattr(text, "reprcrash", None))])  # fmt: skip
    for traceback, crash, *_ in parts:
        if crash is not None:
            crash.message = clean(crash.message)
        for entry in getattr(traceback, "reprentries", ()):
            for lines in (entry, getattr(entry, "reprlocals", None)):
                if lines is not None and hasattr(lines, "lines"):
                    lines.lines = [clean(line) for line in lines.lines]
