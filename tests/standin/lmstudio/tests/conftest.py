"""What the tests of the stand-in share: the unmodified SDK as its client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import lmstudio
import pytest

Connect = Callable[[str], lmstudio.Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients of a host; they are closed when the test ends."""
    with ExitStack() as clients:

        def client(host: str) -> lmstudio.Client:
            new = lmstudio.Client(host)
            clients.callback(new.close)
            return new

        yield client


@pytest.fixture
def short_silence() -> Iterator[float]:
    """The SDK gives up after this silence, seconds."""
    before: Any = lmstudio.get_sync_api_timeout()
    lmstudio.set_sync_api_timeout(0.25)
    yield 0.25
    lmstudio.set_sync_api_timeout(before)
