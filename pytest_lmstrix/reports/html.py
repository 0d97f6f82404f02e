"""Extends report.html of pytest-html by the fleet map, columns and result details."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import wraps
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pytest_lmstrix.checks.advice import advice_for
from pytest_lmstrix.core.checks import CHECKS
from pytest_lmstrix.core.formatting import memory, rate, seconds, tokens, verdict_text
from pytest_lmstrix.core.sanitize import escape_html, one_line
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.hooks.outcomes import REPLIES_SECTION, results_of
from pytest_lmstrix.reports import changes
from pytest_lmstrix.reports.files import FOREIGN, MARK, is_foreign, is_report_html
from pytest_lmstrix.reports.fleet import Fleet, MapCell, anchor
from pytest_lmstrix.reports.run_json import RunReport

COLUMNS = {
    "model": "Model",
    "context": "Context",
    "verdict": "Verdict",
    "load": "Load",
    "ttft": "TTFT",
    "prefill": "Prefill tokens/s",
    "decode": "Decode tokens/s",
    "memory": "Memory",
}
PLACE = 2
"""Index after pytest-html's own columns, result and test."""


class HtmlReport:
    """Plugin of the controller if pytest-html is active."""

    def __init__(self, *, titled: bool) -> None:
        self._titled = titled
        self._picture = f"{MARK}</section>"

    def show(self, run: RunReport, fleet: Fleet, plots: Sequence[str]) -> None:
        """Render the section above the table of results."""
        self._picture = picture(fleet, run, plots)

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
            f'<td class="col-lmstrix_{name}">{key}{escape(text)}</td>'
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


def picture(fleet: Fleet, run: RunReport, plots: Sequence[str] = ()) -> str:
    """Return the HTML above the table, including its style and script."""
    environment = Environment(
        loader=PackageLoader("pytest_lmstrix.reports", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["line"] = one_line
    environment.globals.update(
        {
            "tokens": tokens,
            **{name: getattr(changes, name) for name in ("basis", "format_measure", "where")},
        }
    )
    here = files("pytest_lmstrix.reports") / "page"
    return environment.get_template("fleet.html.jinja").render(
        css=Markup(here.joinpath("fleet.css").read_text(encoding="utf-8")),
        js=Markup(here.joinpath("fleet.js").read_text(encoding="utf-8")),
        changes=run.changes,
        measures=changes.MEASURES,
        fleet=fleet,
        others=any(row.others for row in fleet.rows),
        earlier=any(
            cell.target is None for row in fleet.rows for cell in (*row.cells.values(), *row.others)
        ),
        recall_sizes=_recall_sizes(fleet),
        recall_text=_recall_text,
        plots=plots,
    )


def _recall_sizes(fleet: Fleet) -> list[int]:
    return sorted({
        size for row in fleet.recalls for size, cell in row.cells.items() if cell.recall
    })  # fmt: skip


def _recall_text(cell: MapCell) -> str:
    return "\n".join(
        f"{float(depth):.0%} deep: {'recalled' if known else 'not recalled'}"
        for depth, known in cell.recall
    )


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
        (_sort_key(result.load_seconds), seconds(result.load_seconds)),
        (_sort_key(result.ttft_seconds), seconds(result.ttft_seconds)),
        (_sort_key(result.prefill_tokens_per_second), rate(result.prefill_tokens_per_second)),
        (_sort_key(result.decode_tokens_per_second), rate(result.decode_tokens_per_second)),
        (_sort_key(result.peak_memory_bytes), memory(result.peak_memory_bytes)),
    ]


def _sort_key(value: float | None) -> str:
    return f"<span hidden>{value or 0:020.6f}</span>"


def _details(result: Result) -> str:
    granted, prompt = result.granted_context_length, result.prompt_tokens
    facts = {
        "engine": " ".join(filter(None, (result.engine, result.engine_version))),
        "host": result.host or "",
        "settings": result.settings,
        "asked for": f"{tokens(result.context_length)} tokens",
        "granted": "" if granted is None else f"{tokens(granted)} tokens",
        "prompt": "" if prompt is None else f"{tokens(prompt)} tokens",
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
                return hook(*args)
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
