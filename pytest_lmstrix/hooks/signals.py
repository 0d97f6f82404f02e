"""An orderly end on signals that would otherwise end the process at once, with models loaded."""

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
"""Modules that take a lock just before the `try` that frees it: raised there, it stays taken."""

PUT_OFF_SECONDS, MOST_TIMES = 0.005, 200


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end; pytest tears everything down as on Ctrl-C."""


class Signals:
    """Registered as a plugin: installs the handlers, and ends with 128 + the signal's number."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._finishing = False
        self._times_put_off = 0
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
            number: signal.Signals | None = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in DEFAULTS:
                self._previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork that has not yet become another program
            if number == signal.SIGINT:
                signal.default_int_handler(number, frame)
            os._exit(128 + number)
        if _takes_a_lock(frame) and self._times_put_off < MOST_TIMES:
            self._times_put_off += 1
            _thread.start_new_thread(_send_again, (number,))  # `Thread` takes locks itself
            return
        self._times_put_off = 0
        if number == signal.SIGINT and (not self._finishing or self._received == number):
            signal.default_int_handler(number, frame)
        self._received = number
        if not self._finishing:  # else it ends already, and only a second Ctrl-C breaks that off
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
    return not frame.f_code.co_name.lstrip("_").startswith(("wait", "join"))  # for long, unlocked


def _send_again(number: int) -> None:
    time.sleep(PUT_OFF_SECONDS)
    if sys.platform == "win32":
        _thread.interrupt_main(signal.Signals(number))
    else:  # unlike the former, it also ends what the main thread waits for meanwhile
        signal.pthread_kill(threading.main_thread().ident or 0, number)
