"""Keeps errors of pytest-html from ending a run, and its report off files that must stay."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.reports.files import FOREIGN, foreign, is_report_html


class HtmlGuard:
    """Wraps the hooks of pytest-html's report.

    pytest-html writes in its own hooks, where an error would end the run or hide its summary.
    `own` is the file that the plugin chose; `None` where the user did, who may replace any file.
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
        """Wrap the hooks of the reports that pytest-html has registered."""
        for name in ("pytest_sessionfinish", "pytest_runtest_logreport", "pytest_terminal_summary"):
            for each in getattr(manager.hook, name).get_hookimpls():
                if type(each.plugin).__module__.startswith("pytest_html."):
                    each.function = self._guarded(name, each.function)

    def _guarded(self, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
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
            elif foreign(self._own, is_report_html):
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
        """Remove a report cut short, in which the mark of the plugin may be missing."""
        if self._own is not None and self._may_remove:
            with contextlib.suppress(OSError):
                if foreign(self._own, _is_complete):
                    self._own.unlink()


def _is_complete(data: bytes) -> bool:
    return data.rstrip().endswith(b"</html>")
