"""What the commands print, limited to the width of the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.table import TableCell, prose
from pytest_lmstrix.hooks.github_actions import guard_output


class Output:
    """Output of the commands, limited to the width of the terminal, if there is one."""

    def __init__(self, config: pytest.Config) -> None:
        self._writer = pytest.TerminalReporter(config)._tw
        guard_output(self._writer)
        bounded = sys.stdout.isatty() or "COLUMNS" in os.environ
        self.width = self._writer.fullwidth if bounded else None

    def line(self, text: str = "") -> None:
        self._writer.line(text)

    def lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._writer.line(line)

    def paint(self, text: str, colour: str) -> str:
        return self._writer.markup(text, **{colour: True}) if colour else text

    def section(self, title: str, rows: Sequence[Sequence[TableCell]]) -> None:
        """Print `title` and `rows`; nothing without rows."""
        if rows:
            self.line(f"\n{title}")
            self.lines(prose(rows, paint=self.paint, width=self.width))


def shown_path(path: Path, config: pytest.Config) -> str:
    """Return `path`, relative to rootdir if inside it."""
    inside = path.is_relative_to(config.rootpath)
    return one_line(str(path.relative_to(config.rootpath) if inside else path), 1_000)
