"""Extends report.html of pytest-html by the fleet map, columns and result details."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import wraps
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from pytest_lmstrix.checks.advice import advice_for
from pytest_lmstrix.core.checks import CHECKS
from pytest_lmstrix.core.formatting import tokens, verdict_text
from pytest_lmstrix.core.sanitize import escape_html, one_line
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.hooks.outcomes import REPLIES_SECTION, results_of
from pytest_lmstrix.plan.plan import Plan
from pytest_lmstrix.registry.history.earlier import History
from pytest_lmstrix.reports.files import FOREIGN, MARK, is_foreign, is_report_html, replace_file
from pytest_lmstrix.reports.page.fleet import anchor
from pytest_lmstrix.reports.page.render import Part, render_page
from pytest_lmstrix.reports.run_json import RunReport

COLUMNS = {
    "model": "Model",
    "context": "Context",
    "verdict": "Verdict",
}
PLACE = 2
"""Index after pytest-html's own columns, result and test."""


class HtmlReport:
    """Plugin of the controller if pytest-html is active."""

    def __init__(self, *, titled: bool) -> None:
        self._titled = titled
        self._picture = f"{MARK}</section>"

    def show(self, plan: Plan, run: RunReport, history: History, part: Part) -> None:
        """Render the section above the table of tests."""
        self._picture = render_page(plan, run, history, part)

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_report_title(self, report: Any) -> None:
        if self._titled:
            report.title = "Local LLM models"

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_summary(self, prefix: list[str]) -> None:
        prefix.append(self._picture)

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        cells[PLACE:PLACE] = [
            f'<th class="sortable" data-column-type="lmstrix_{name}">{heading}</th>'
            for name, heading in COLUMNS.items()
        ]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_row(self, report: pytest.TestReport, cells: list[str]) -> None:
        results = results_of(report)
        texts = _texts(results[0]) if results else [("", "")] * len(COLUMNS)
        # pytest-html inserts node ids as HTML, and sorts cells by their text.
        test = report.nodeid if report.when == "call" else f"{report.nodeid}::{report.when}"
        cells[1] = f'<td class="col-testId" id="{anchor(report.nodeid)}">{escape_html(test)}</td>'
        cells[PLACE:PLACE] = [
            f"<td class=col-lmstrix_{name}>{key}{escape(text)}</td>"
            for name, (key, text) in zip(COLUMNS, texts, strict=True)
        ]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_html(self, report: pytest.TestReport, data: list[str]) -> None:
        """Insert result details; for built-in checks they replace the log, which repeats them."""
        results = results_of(report)
        if not results:
            return
        only_replies = all(name == REPLIES_SECTION for name, _ in report.sections)
        if results[0].check in CHECKS and only_replies:
            data.clear()
        data.insert(0, "".join(map(_details, results)))


def _texts(result: Result) -> list[tuple[str, str]]:
    """Return each cell's sort key, as hidden HTML, and its text."""
    granted = result.granted_context_length
    context = tokens(result.context_length)
    if granted is not None and granted != result.context_length:
        context += f" (granted {tokens(granted)})"
    return [
        ("", one_line(result.model)),
        (_sort_key(result.context_length), context),
        ("", verdict_text(result.verdict, [result])),
    ]


def _sort_key(value: int) -> str:
    return f"<i hidden>{value:010}</i>"


def _details(result: Result) -> str:
    """Return reason and replies; the measurements are with those of the model, above."""
    facts = {
        "prompt": "" if result.prompt_tokens is None else f"{tokens(result.prompt_tokens)} tokens",
        "seed": "" if result.seed is None else str(result.seed),
        "second try": "yes" if result.retried else "",
    }
    recall = result.recall or {}
    facts["recall"] = ", ".join(
        f"{float(depth):.0%} {'yes' if known else 'no'}" for depth, known in sorted(recall.items())
    )
    parts = [
        f"<b>{escape_html(one_line(result.check))}: {result.verdict}</b>"
        f" {escape_html(result.detail, 2_000)}",
        escape_html(advice_for(result)),
        "; ".join(f"{name} {escape_html(one_line(text))}" for name, text in facts.items() if text),
        *map(escape_html, result.notes),
        "Replies:" if result.replies else "",
    ]
    replies = "".join(f"<q>{escape_html(reply, 2_000)}</q>" for reply in result.replies)
    text = "".join(f"<p>{part}</p>" for part in parts if part)
    # pytest-html styles lines that begin with E, and replies may contain any text.
    return f'<div class="lmstrix-details">{text}{replies}</div>'.replace("\n", "&#10;")


class HtmlGuard:
    """Wraps pytest-html's hooks, in which an error would end the run or hide its summary.

    `own` is the plugin's default file; `None` if the user chose the file, which is then replaced
    whatever it contains.
    """

    def __init__(
        self,
        own: Path | None,
        leave_out: Callable[[str, str], None],
        tested: Callable[[], bool],
    ) -> None:
        self._own = own
        self._leave_out = leave_out
        self._tested = tested
        self._stopped = False
        self._may_remove = False

    def install(self, manager: pytest.PytestPluginManager) -> None:
        """Wrap the hooks that pytest-html has registered."""
        for name in ("pytest_sessionfinish", "pytest_runtest_logreport", "pytest_terminal_summary"):
            for each in getattr(manager.hook, name).get_hookimpls():
                if type(each.plugin).__module__.startswith("pytest_html."):
                    each.function = self._guard(name, each.function)

    def _guard(self, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(hook)
        def guarded(*args: Any) -> Any:
            if self._stopped or (name == "pytest_sessionfinish" and not self._may_write()):
                return None
            try:
                result = hook(*args)
                if name == "pytest_sessionfinish":
                    self._shorten()
                return result
            except Exception as error:
                self._stop(error)
                self._remove_partial()
                return None

        return guarded

    def _may_write(self) -> bool:
        if self._own is None:
            return True
        try:
            if not self._tested():
                self._stopped = True
            elif is_foreign(self._own, is_report_html):
                self._stop(OSError(FOREIGN))
        except OSError as error:
            self._stop(error)
        self._may_remove = not self._stopped
        return not self._stopped

    def _shorten(self) -> None:
        if self._own is not None:
            with contextlib.suppress(OSError, ValueError):
                page = with_short_data(self._own.read_text(encoding="utf-8"))
                replace_file(self._own, page.encode(), is_report_html)

    def _stop(self, error: Exception) -> None:
        self._stopped = True
        name = self._own.name if self._own is not None else "report.html"
        strerror = error.strerror if isinstance(error, OSError) else None
        self._leave_out(name, strerror or one_line(str(error) or type(error).__name__, 300))

    def _remove_partial(self) -> None:
        """Remove a truncated report, in which the plugin's mark may be missing."""
        if self._own is not None and self._may_remove:
            with contextlib.suppress(OSError):
                if is_foreign(self._own, _is_complete):
                    self._own.unlink()


def _is_complete(data: bytes) -> bool:
    return data.rstrip().endswith(b"</html>")


def with_short_data(page: str) -> str:
    """Return a page of pytest-html whose table of tests is encoded in half of the space.

    Its JSON is in an attribute in double quotes, in which each quote takes five characters.

    Raises:
        ValueError: The page has another form.
    """
    before, name, rest = page.partition(_DATA)
    data, _, after = rest.partition('"')
    if not name:
        raise ValueError("the page has no data")
    text = json.dumps(json.loads(unescape(data)), ensure_ascii=False, separators=(",", ":"))
    for character, reference in (("&", "&amp;"), ("<", "&lt;"), ("'", "&#39;")):
        text = text.replace(character, reference)
    return f"{before}{_DATA[:-1]}'{text}'{after}"


_DATA = 'data-jsonblob="'
