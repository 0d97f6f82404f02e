"""Several requests that an engine answers at the same time, each from a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread, current_thread
from typing import TypeVar

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress

_T = TypeVar("_T")

_LOOK_SECONDS = 0.5
_JOIN_SECONDS = 5.0
"""Time limit for requests to end that have been given up."""


class Sharing:
    """Requests at once share the speed of an engine.

    While one is prefilled, the others may hear nothing for as long as that takes: so only a
    silence of them all counts.
    """

    def __init__(self, silence_seconds: float) -> None:
        self.given_up = Event()
        """Set when one has failed: the answers of the others are no longer wanted."""
        self.turn = Lock()
        """For what only one of them may do at a time."""
        self._limit = silence_seconds
        self._allowance = 0.0
        self._moved = time.monotonic()
        self._lock = Lock()
        self._prefills: dict[Thread, tuple[int, int]] = {}
        self._threads: list[Thread] = []

    @property
    def silence_seconds(self) -> float:
        """How long all of them may be silent."""
        return max(self._limit, self._allowance)

    def allow(self, seconds: float) -> None:
        """Allow for the prefill of one more request, whose progress may not be reported."""
        with self._lock:
            self._allowance += seconds

    def moved(self) -> None:
        """Note a sign of one of them."""
        self._moved = time.monotonic()

    def prefill(self, progress: Progress, done: int, total: int) -> None:
        """Report the prefill of one of them as a part of them all."""
        with self._lock:
            if self._prefills.get(current_thread()) != (done, total):  # repeated, it is a silence
                self.moved()
            self._prefills[current_thread()] = done, total
            all_done, totals = zip(*self._prefills.values(), strict=True)
            progress.prefill(sum(all_done), sum(totals))

    def run(
        self, asks: Sequence[Callable[[], _T]], end: Callable[[], object] = lambda: None
    ) -> list[_T]:
        """Return the answers to `asks`, all of them asked at once.

        The first error is raised, after `end` was called to end the other requests.

        Raises:
            Failure: None of them has moved for too long.
        """
        answers: SimpleQueue[tuple[int, _T | None, BaseException | None]] = SimpleQueue()

        def ask(number: int) -> None:
            try:
                answers.put((number, asks[number](), None))
            except BaseException as error:
                answers.put((number, None, error))

        self._threads = [
            Thread(target=ask, args=(number,), daemon=True) for number in range(len(asks))
        ]
        self._moved = time.monotonic()
        found: dict[int, _T] = {}
        try:
            for thread in self._threads:
                thread.start()
            while len(found) < len(asks):
                number, answer, error = self._next(answers)
                if error is not None:
                    raise error
                assert answer is not None
                found[number] = answer
        except BaseException:
            self.given_up.set()
            with suppress(Exception):  # the first error tells more
                end()
            raise
        finally:
            self.join()
        return [found[number] for number in range(len(asks))]

    def join(self) -> None:
        """Wait, not for long, for requests that are given up."""
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _next(
        self, answers: SimpleQueue[tuple[int, _T | None, BaseException | None]]
    ) -> tuple[int, _T | None, BaseException | None]:
        while True:
            try:
                answer = answers.get(timeout=_LOOK_SECONDS)
            except Empty:
                silence = self.silence_seconds
                if time.monotonic() - self._moved > silence:
                    text = f"timed out: none of the requests at once moved for {silence:g} s"
                    raise Failure(text, verdict=Verdict.TIMEOUT, phase="predict") from None
            else:
                self.moved()
                return answer
