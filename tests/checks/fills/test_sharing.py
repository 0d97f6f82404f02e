"""Requests at once share the speed of an engine: what counts as a silence, and as an error."""

from __future__ import annotations

from _thread import interrupt_main
from threading import Barrier, Event

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.at_once import Sharing
from tests.checks.laboratory import NoWatch


class Recorder(NoWatch):
    def __init__(self) -> None:
        self.prefills: list[tuple[int, int]] = []

    def prefill(self, done: int, total: int) -> None:
        self.prefills.append((done, total))


def test_all_run_at_once_and_answer_in_their_order() -> None:
    together = Barrier(3, timeout=10)

    def ask(number: int) -> int:
        together.wait()
        return number

    assert Sharing(60).run([lambda n=n: ask(n) for n in range(3)]) == [0, 1, 2]


def test_the_progress_of_one_is_no_silence_of_the_others() -> None:
    sharing, done = Sharing(0.8), Event()

    def prefilled() -> str:
        for each in range(1, 21):
            sharing.prefill(NoWatch(), each, 20)
            done.wait(0.1)
        done.set()
        return "first"

    def waiting() -> str:
        assert done.wait(30)
        return "second"

    assert sharing.run([prefilled, waiting]) == ["first", "second"]


def test_repeated_progress_is_a_silence() -> None:
    sharing, ended = Sharing(0.5), Event()

    def stuck() -> None:
        while not ended.wait(0.05):
            sharing.prefill(NoWatch(), 1, 20)

    with pytest.raises(Failure, match=r"none of the requests at once moved for 0\.5 s") as failed:
        sharing.run([stuck, stuck], end=ended.set)
    assert failed.value.verdict is Verdict.TIMEOUT


def test_the_first_error_ends_the_others_and_is_raised() -> None:
    sharing, ended = Sharing(60), Event()

    def fails() -> None:
        raise ZeroDivisionError

    def ends_late() -> None:
        assert ended.wait(30)
        raise KeyError

    with pytest.raises(ZeroDivisionError):
        sharing.run([ends_late, fails], end=ended.set)
    assert sharing.given_up.is_set()


def test_an_interrupt_ends_them_all() -> None:
    ended = Event()

    def ask() -> None:
        interrupt_main()
        assert ended.wait(30)

    with pytest.raises(KeyboardInterrupt):
        Sharing(60).run([ask], end=ended.set)


def test_the_progress_of_all_is_shown_as_one() -> None:
    sharing, seen, first = Sharing(60), Recorder(), Event()

    def ask(done: int, after: bool) -> int:
        if after:
            assert first.wait(30)
        sharing.prefill(seen, done, 100)
        first.set()
        return done

    sharing.run([lambda: ask(40, False), lambda: ask(70, True)])
    assert seen.prefills == [(40, 100), (110, 200)]
