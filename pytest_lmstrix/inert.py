"""Plugin of runs without model tests: skips the tests that ask for a model."""

from __future__ import annotations

import pytest

_REASON = "models are tested with --lmstrix, or a marker of its checks in -m"


@pytest.fixture(scope="session")
def lmstrix_model() -> None:
    """A loaded model, in a run with --lmstrix."""
    pytest.skip(_REASON)


@pytest.fixture(scope="session")
def lmstrix_embedding() -> None:
    """A loaded embedding model, in a run with --lmstrix."""
    pytest.skip(_REASON)


class HeaderLine:
    """Explains in a line of the header why the plugin is inert; empty where nothing is expected."""

    def __init__(self, note: str) -> None:
        self._note = note

    def pytest_report_header(self) -> list[str]:
        return [f"lmstrix: {self._note}"] if self._note else []
