"""The fixture of the tests of the engine `lmstudio`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_lmstrix.engines.lmstudio.engine import PREFIX
from tests.engines.lmstudio.studio import TINY, USERS, Studio
from tests.standin.lmstudio import Fault, LmStudioServer, StandInModel


@pytest.fixture
def studio() -> Iterator[Callable[..., Studio]]:
    """Starts a `Studio`; afterwards the user's instance is untouched and ours are unloaded."""
    started: list[Studio] = []

    def start(
        *models: StandInModel,
        faults: tuple[Fault, ...] = (),
        api_tokens: tuple[str, ...] = (),
        version: str = "0.3.30",
        **options: Any,
    ) -> Studio:
        server = LmStudioServer(
            models or [TINY],
            faults=faults,
            loaded=[USERS],
            api_tokens=api_tokens,
            version=version,
        )
        started.append(Studio(server.__enter__(), **options))
        return started[-1]

    yield start
    for each in started:
        each.engine.close()
        left = each.ours()
        each.server.stop()
        assert each.server.violations == []
        assert left == []
        assert all(call.ttl_ms is not None for call in each.server.loads())
        assert all(call.endpoint == "loadModel" for call in each.server.loads())
        touched = [*each.server.loads(), *each.server.unloads(), *each.server.predictions()]
        assert all((call.identifier or "").startswith(f"{PREFIX}me-1-") for call in touched)
        if not any(change.why == "restart" for change in each.server.changes):
            assert "tiny" in each.server.loaded()
