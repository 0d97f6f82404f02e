"""Isolation of tests from each other and from the user."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.project import Project

if sys.dont_write_bytecode:  # each of the many processes of tests would compile all modules
    bytecode = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(bytecode)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(bytecode)


def pytest_configure() -> None:
    """Give property tests no time limit: a busy machine is no defect."""
    if not find_spec("hypothesis"):  # as in a run of the models
        return
    hypothesis = import_module("hypothesis")
    too_slow = hypothesis.HealthCheck.too_slow
    hypothesis.settings.register_profile("lmstrix", deadline=None, suppress_health_check=[too_slow])
    hypothesis.settings.load_profile("lmstrix")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what takes long, unless it is asked for, and begin with what waits most.

    So no worker is left alone with tests of time-outs at the end.
    """
    items.sort(key=lambda item: "faults" not in item.path.parts)
    if not os.environ.get("LMSTRIX_TEST_LONG"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes long: needs LMSTRIX_TEST_LONG=1"))


@pytest.fixture(autouse=True)
def _own_locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a lock folder per test, so that tests do not wait for other models."""
    monkeypatch.setenv("PYTEST_LMSTRIX_LOCKS", str(tmp_path_factory.mktemp("locks")))
    # Neither the user's Ollama nor the notes of what was loaded there.
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))


@pytest.fixture(scope="session")
def _project_module() -> str:
    """Import it before pytester takes its module snapshot; a run of the models needs none."""
    return import_module("tests.end_to_end.project").__name__


@pytest.fixture
def project(_project_module: str, pytester: pytest.Pytester) -> Iterator[Project]:
    project: Project = import_module(_project_module).Project(pytester)
    yield project
    for process in project.started:
        process.kill()
        process.communicate()
