"""Protects output on GitHub Actions, where a printed line can be a workflow command."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pytest_lmstrix.core.sanitize import without_commands


class GuardedFile:
    """A text file that neutralizes workflow commands in written lines."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._line = ""
        """Current incomplete line."""

    def write(self, text: str) -> int:
        safe = without_commands(text, after=self._line)
        self._line = (self._line + safe).replace("\r", "\n").rpartition("\n")[2][-200:]
        self._file.write(safe)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class GithubActions:
    """Protects the output of pytest's terminal reporter."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            guard_output(reporter._tw)


def guard_output(writer: Any) -> None:
    """On GitHub Actions, neutralize workflow commands in the output of `writer`."""
    if os.environ.get("GITHUB_ACTIONS") and not isinstance(writer._file, GuardedFile):
        writer._file = GuardedFile(writer._file)
