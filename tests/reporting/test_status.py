"""The line that says what is under way, and the estimate of what is left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pytest_lmstrix.reporting.relay import Relay, Relays
from pytest_lmstrix.reporting.status import LEAST_ROOM, Estimate, Status, Urgent, status_line

LOADING = Status(what="llama at 30,000 tokens", state="loading 45%", began=100.0)
OTHER = Status(what="qwen at 8,191 tokens", state="loaded", began=110.0)


def line(*statuses: Status, room: int, done: int = 2, rest: float | None = 200.0) -> str:
    return status_line(statuses, 112.0, done=done, total=12, rest=rest, room=room)


def test_all_of_it_where_there_is_room() -> None:
    assert line(LOADING, room=120) == (
        "[3/12] llama at 30,000 tokens: loading 45% (12 s), about 3 min 20 s left"
    )
    assert line(LOADING, OTHER, room=120, rest=None) == (
        "[3/12] llama at 30,000 tokens: loading 45% (12 s) | qwen at 8,191 tokens: loaded (2 s)"
    )


def test_the_most_telling_where_there_is_less() -> None:
    assert line(LOADING, room=60) == "[3/12] llama at 30,000 tokens: loading 45% (12 s)"
    assert line(LOADING, room=30) == "[3/12] loading 45% (12 s)"
    assert line(LOADING, room=LEAST_ROOM) == "[3/12] loading 4"
    assert line(LOADING, room=LEAST_ROOM - 1) == ""


def test_no_count_before_the_tests_are_known() -> None:
    assert status_line([OTHER], 112, done=0, total=0, rest=None, room=80).startswith("qwen")


@given(st.text(max_size=40), st.text(max_size=40), st.integers(-5, 200))
def test_it_never_takes_more_than_its_room(what: str, state: str, room: int) -> None:
    status = Status(what=what, state=state, began=100.0)
    assert cell_len(line(status, status, room=room)) <= max(room, 0)


def test_the_rest_is_what_earlier_runs_took_at_the_pace_of_this_one() -> None:
    estimate = Estimate(["a", "b", "c"], {"a": 10.0, "b": 20.0, "c": 30.0})
    assert estimate.rest() == 60.0
    estimate.add("a", 15.0)
    estimate.add("a", 5.0)
    estimate.finish("a")
    assert (estimate.done, estimate.rest()) == (1, 100.0)


def test_what_no_run_knows_takes_what_others_take() -> None:
    estimate = Estimate(["a", "b", "c"], {"a": 10.0})
    assert estimate.rest() == 30.0
    unknown = Estimate(["a", "b", "c"], {}, workers=2)
    assert unknown.rest() is None
    unknown.add("a", 8.0)
    unknown.finish("a")
    assert unknown.rest() == 8.0
    unknown.finish("b")
    unknown.finish("c")
    assert unknown.rest() is None


def test_a_log_is_told_of_waiting_at_once_and_once() -> None:
    urgent = Urgent()
    waiting = Status(what="host", state="waiting for me", began=1.0, urgent=True)
    assert urgent.unsaid([LOADING, waiting]) == [waiting]
    assert urgent.unsaid([LOADING, waiting]) == []
    other = Status(what="host", state="waiting for you", began=1.0, urgent=True)
    assert urgent.unsaid([waiting, other]) == [other]


def test_workers_tell_the_controller() -> None:
    relays = Relays()
    try:
        one, two = Relay(relays.folder, "gw0"), Relay(relays.folder, "gw1")
        two.tell(OTHER)
        one.tell(LOADING)
        assert relays.statuses() == [LOADING, OTHER]
        one.tell(None)
        assert relays.statuses() == [OTHER]
        relays.forget("gw1")
        assert relays.statuses() == []
    finally:
        relays.close()
    one.tell(LOADING)
    assert relays.statuses() == []
