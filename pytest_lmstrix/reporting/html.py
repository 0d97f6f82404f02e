"""Columns of report.html, which pytest-html writes."""

from __future__ import annotations

from html import escape
from typing import Any

import pytest

from pytest_lmstrix.outcomes import results_of
from pytest_lmstrix.reporting.figures import rate, seconds, tokens
from pytest_lmstrix.text import one_line
from pytest_lmstrix.types import Result

HEADINGS = ("Model", "Context", "Verdict", "Load", "TTFT", "Tokens/s")
PLACE = 2
"""Behind pytest-html's own columns result and test."""


class HtmlColumns:
    """Registered on the controller when pytest-html is there."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_report_title(self, report: Any) -> None:
        report.title = "Local LLM models"

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        cells[PLACE:PLACE] = [
            f'<th class="sortable" data-column-type="lmstrix-{name.lower()}">{name}</th>'
            for name in HEADINGS
        ]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_row(self, report: pytest.TestReport, cells: list[str]) -> None:
        results = results_of(report)
        texts = _texts(results[0]) if results else [""] * len(HEADINGS)
        cells[PLACE:PLACE] = [
            f'<td class="col-lmstrix-{name.lower()}">{escape(text)}</td>'
            for name, text in zip(HEADINGS, texts, strict=True)
        ]


def _texts(result: Result) -> list[str]:
    granted = result.granted_context_length
    context = tokens(result.context_length)
    if granted is not None and granted != result.context_length:
        context += f" (granted {tokens(granted)})"
    return [
        one_line(result.model),
        context,
        result.verdict.value,
        seconds(result.load_seconds),
        seconds(result.ttft_seconds),
        rate(result.decode_tokens_per_second),
    ]
