"""A stand-in LM Studio with an instance of another user, and an engine for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pytest_lmstrix.core.types import Model
from pytest_lmstrix.engines.lmstudio.engine import PREFIX, LmStudioEngine
from pytest_lmstrix.engines.lmstudio.instance import LmStudioInstance
from tests.standin.lmstudio import LmStudioServer, StandInModel, UserInstance

TINY = StandInModel(key="tiny")
MODEL = Model(id="tiny", engine="lmstudio")
PATIENCE_SECONDS = 30.0
USERS = UserInstance(key="tiny", identifier="tiny")
"""An instance of the tested model that the user has loaded under its own key."""


class Watched:
    """A `Progress` that records reports and can call a hook."""

    def __init__(
        self,
        on_load: Callable[[float], None] = lambda fraction: None,
        on_prefill: Callable[[], None] = lambda: None,
    ) -> None:
        self.fractions: list[float] = []
        self.prefilled: list[tuple[int, int]] = []
        self._on_load = on_load
        self._on_prefill = on_prefill

    def __call__(self, fraction: float, /) -> None:
        self.fractions.append(fraction)
        self._on_load(fraction)

    def prefill(self, done: int, total: int) -> None:
        self.prefilled.append((done, total))
        self._on_prefill()


class Studio:
    """A running stand-in with an instance of another user, and an engine for it."""

    def __init__(self, server: LmStudioServer, **options: Any) -> None:
        self.server = server
        self.engine = LmStudioEngine(server.host, **{"owner": "me-1"} | options)

    def load(self, context_length: int = 4096, progress: Watched | None = None) -> LmStudioInstance:
        return self.engine.load(MODEL, context_length, progress or Watched())

    def drop_connections(self) -> None:
        """Break every connection, and return once the SDK's thread has noticed."""
        self.server.drop_connections()
        self._notice()

    def restart(self) -> None:
        """Lose every connection and instance, likewise."""
        self.server.restart()
        self._notice()

    def _notice(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.engine.link.is_alive and time.monotonic() < deadline:
            time.sleep(0.01)

    def ours(self) -> list[str]:
        """Instances of this plugin that are loaded."""
        return [name for name in self.server.loaded() if name.startswith(PREFIX)]


def when(
    server: LmStudioServer, condition: Callable[[], bool], action: Callable[[], None]
) -> threading.Thread:
    """Call `action` in another thread once `condition` holds."""

    def run() -> None:
        server.wait_for(condition)
        action()

    thread = threading.Thread(target=run)
    thread.start()
    return thread
