"""Protects output on GitHub Actions, where a printed line can be a workflow command."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import pytest

from pytest_lmstrix.hooks.collection import asks_for_model, case_of
from pytest_lmstrix.system.workflow_commands import guarded


class GithubActions:
    """Protects the output of pytest's terminal reporter and, with `-s`, that of model tests."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            guard_output(reporter._tw)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        is_model_test = case_of(item) is not None or asks_for_model(item)
        if item.config.option.capture != "no" or not is_model_test:
            return (yield)
        before = sys.stdout, sys.stderr
        during = guarded(sys.stdout), guarded(sys.stderr)
        sys.stdout, sys.stderr = during
        try:
            return (yield)
        finally:
            if sys.stdout is during[0]:
                sys.stdout = before[0]
            if sys.stderr is during[1]:
                sys.stderr = before[1]


def guard_output(writer: Any) -> None:
    """On GitHub Actions, neutralize workflow commands in the output of `writer`."""
    writer._file = guarded(writer._file)
