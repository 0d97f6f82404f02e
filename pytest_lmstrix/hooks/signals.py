"""Ends a run in an orderly way on signals that would otherwise leave models loaded."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from types import FrameType

import pytest

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""SIGHUP: a terminal closed (POSIX). SIGBREAK: Ctrl-Break, or a closed console (Windows)."""

DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


LOCKING = frozenset({"logging", "importlib._bootstrap", "threading"})
"""Modules that acquire locks just before the `try` that releases them; no place to raise."""

POSTPONE_SECONDS, MOST_TIMES = 0.005, 200


class Terminated(KeyboardInterrupt):
    """Raised on a signal to end; pytest tears down as on Ctrl-C."""


class Signals:
    """Plugin that installs the handlers; the exit status is 128 + the signal's number."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._finishing = False
        self._times_postponed = 0
        self._previous: dict[int, object] = {}
        self._process = os.getpid()

    # After all others: an interrupt during their start does not reach `pytest_sessionfinish`.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionstart(self) -> Generator[None, object, object]:
        outcome = yield
        self._install()
        return outcome

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python sets handlers only there
        for name in NAMES:
            number: signal.Signals | None = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in DEFAULTS:
                self._previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork before its exec
            if number == signal.SIGINT:
                signal.default_int_handler(number, frame)
            os._exit(128 + number)
        if _takes_a_lock(frame) and self._times_postponed < MOST_TIMES:
            self._times_postponed += 1
            _thread.start_new_thread(_send_again, (number,))  # `Thread` acquires locks itself
            return
        self._times_postponed = 0
        if number == signal.SIGINT and (not self._finishing or self._received == number):
            signal.default_int_handler(number, frame)
        self._received = number
        if not self._finishing:  # else only a second Ctrl-C interrupts the end
            raise Terminated(f"ended by {signal.Signals(number).name}")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        self._finishing = True
        try:
            return (yield)
        finally:
            if self._received == signal.SIGINT:
                session.exitstatus = pytest.ExitCode.INTERRUPTED
            elif self._received is not None:
                session.exitstatus = 128 + self._received

    def pytest_unconfigure(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)  # type: ignore[arg-type]


def _takes_a_lock(frame: FrameType | None) -> bool:
    if frame is None or frame.f_globals.get("__name__") not in LOCKING:
        return False
    return not frame.f_code.co_name.lstrip("_").startswith(
        ("wait", "join")
    )  # they block, without the lock


def _send_again(number: int) -> None:
    time.sleep(POSTPONE_SECONDS)
    if sys.platform == "win32":
        _thread.interrupt_main(signal.Signals(number))
    else:  # also interrupts a blocking call of the main thread
        signal.pthread_kill(threading.main_thread().ident or 0, number)
