"""Fixtures of the stand-in's tests: the unmodified SDK as client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import lmstudio
import pytest

Connect = Callable[[str], lmstudio.Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Creates clients of a host; they are closed when the test ends."""
    with ExitStack() as clients:

        def client(host: str) -> lmstudio.Client:
            new = lmstudio.Client(host)
            clients.callback(new.close)
            return new

        yield client


@pytest.fixture
def short_silence() -> Iterator[float]:
    """Set the timeout of the SDK, seconds."""
    before: Any = lmstudio.get_sync_api_timeout()
    lmstudio.set_sync_api_timeout(0.25)
    yield 0.25
    lmstudio.set_sync_api_timeout(before)
