"""A project without a manifest, and hosts to scan."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.commands.scan.scans import MODELS
from tests.end_to_end.project import Project
from tests.standin.lmstudio import LmStudioServer


@pytest.fixture
def empty(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project without a manifest, for a user without models or settings."""
    (project.path / "models.yaml").unlink()
    project.pytester.makeconftest("")
    home = project.path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home))
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "LLAMA_CACHE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return project


@pytest.fixture
def server() -> Iterator[LmStudioServer]:
    with LmStudioServer(MODELS) as server:
        yield server


@pytest.fixture
def unreachable_host() -> Iterator[str]:
    """A host where nothing listens: the port is bound, but not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"
