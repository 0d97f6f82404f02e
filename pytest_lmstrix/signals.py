"""An orderly end on signals that would otherwise end the process at once, with models loaded."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from types import FrameType

import pytest

NAMES = ("SIGTERM", "SIGHUP", "SIGBREAK")
"""SIGHUP: a terminal closed (POSIX). SIGBREAK: Ctrl-Break, or a closed console (Windows)."""


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end; pytest tears everything down as on Ctrl-C."""


class Signals:
    """Registered as a plugin: installs the handlers, and ends with 128 + the signal's number."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, object] = {}
        self._process = os.getpid()

    # After all others: an interrupt during their start never gets to `pytest_sessionfinish`.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionstart(self) -> Generator[None, object, object]:
        outcome = yield
        self._install()
        return outcome

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only there Python lets handlers be set
        for name in NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                self._previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            os._exit(128 + number)  # a fork that has not yet become another program
        self._received = number
        raise Terminated(f"ended by {signal.Signals(number).name}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._received is not None:
            session.exitstatus = 128 + self._received

    def pytest_unconfigure(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)  # type: ignore[arg-type]
