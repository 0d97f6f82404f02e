"""Loads in a child process, and the processes that they start."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
from msgspec import Struct

from pytest_lmstrix.core.types import LoadSettings, Model, Prompts
from pytest_lmstrix.engines.llamacpp.engine import ChildEngine
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from tests.standin import weights

FEW_SHOT = "1 + 1 = 2\n4 + 4 = 8\n6 + 3 = 9\n2 + 3 ="
PATIENCE = 60.0
"""Seconds that a busy machine may take for an immediate action."""


class Recorder:
    """A `Progress` that records reports, and calls a hook at the first of either kind."""

    def __init__(
        self,
        on_load: Callable[[], object] | None = None,
        on_prefill: Callable[[], object] | None = None,
    ) -> None:
        self.loads: list[float] = []
        self.prefills: list[tuple[int, int]] = []
        self._on_load = on_load
        self._on_prefill = on_prefill

    def __call__(self, fraction: float, /) -> None:
        self.loads.append(fraction)
        if self._on_load is not None and len(self.loads) == 1:
            self._on_load()

    def prefill(self, done: int, total: int) -> None:
        self.prefills.append((done, total))
        if self._on_prefill is not None and len(self.prefills) == 1:
            self._on_prefill()


class ModelLoader(Struct, frozen=True):
    """An engine and its processes."""

    engine: ChildEngine
    known: frozenset[psutil.Process]
    start: Callable[..., ChildEngine]
    """Make another engine of its kind."""

    def load(
        self,
        context_length: int = 512,
        progress: Recorder | None = None,
        *,
        source: Path | None = None,
        load: LoadSettings | None = None,
        prompts: Prompts = "completion",
    ) -> LlamaCppInstance:
        # One thread: several are very slow when other tests run at the same time.
        model = Model(
            id="smollm2",
            engine=self.engine.name,
            source=str(source or weights.smollm2()),
            load=load or LoadSettings(threads=1, batch_size=64),
            prompts=prompts,
        )
        return self.engine.load(model, context_length, progress or Recorder())

    def processes(self) -> list[psutil.Process]:
        """Supervisors and servers."""
        return [p for p in psutil.Process().children(recursive=True) if p not in self.known]

    def server(self) -> psutil.Process:
        """Wait for the server process itself, the innermost child."""
        words = {"serve", "--model"}
        return until(lambda: [p for p in self.processes() if words & set(arguments(p))])[0]


def arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def until(ask: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """Poll until there is an answer."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.01)
    raise AssertionError("nothing came")


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=PATIENCE)[1]
