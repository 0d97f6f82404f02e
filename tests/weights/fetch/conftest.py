"""A web server, and `fetch` with a temporary cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standin.file_server import FileServer, file_server
from tests.weights.fetch.getter import CONTENT, Getter


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server(CONTENT) as server:
        yield server


@pytest.fixture
def get(tmp_path: Path) -> Getter:
    return Getter(tmp_path)
