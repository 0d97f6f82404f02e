"""What every test needs to keep out of the way of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.project import Project


@pytest.fixture(autouse=True)
def _own_locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither wait for each other's models nor for those of the user."""
    monkeypatch.setenv("PYTEST_LMSTRIX_LOCKS", str(tmp_path_factory.mktemp("locks")))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))


@pytest.fixture
def project(pytester: pytest.Pytester) -> Iterator[Project]:
    project = Project(pytester)
    yield project
    for process in project.started:
        process.kill()
        process.communicate()
