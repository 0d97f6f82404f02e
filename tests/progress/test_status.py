"""Status lines, and the estimate of the remaining time."""

from __future__ import annotations

from io import StringIO
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.progress import display
from pytest_lmstrix.progress.board import board
from pytest_lmstrix.progress.status import Activity, Estimate, Rest, Urgent, status_line
from pytest_lmstrix.progress.worker_files import StatusFile, StatusFiles

LOADING = Activity(what="llama at 30,000 tokens", state="loading 45%", began=100.0, fraction=0.45)
OTHER = Activity(what="qwen at 8,191 tokens", state="loaded", began=110.0)
REST = Rest(done=2, total=12, seconds=200.0)


def drawn(*statuses: Activity, columns: int, rest: Rest = REST) -> list[str]:
    console = Console(file=StringIO(), width=columns, force_terminal=True, no_color=True)
    with console.capture() as capture:
        console.print(board(statuses, 112.0, rest, columns=columns))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_log_line_has_all_fields() -> None:
    assert status_line([LOADING], 112, REST) == (
        "llama at 30,000 tokens: loading 45% (12 s) | case 3 of 12, about 3 min 20 s left"
    )
    assert status_line([LOADING, OTHER], 112, Rest(done=2, total=12, seconds=None)) == (
        "llama at 30,000 tokens: loading 45% (12 s) | qwen at 8,191 tokens: loaded (2 s)"
        " | case 3 of 12"
    )


def test_no_estimate_before_collection() -> None:
    unknown = Rest(done=0, total=0, seconds=None)
    assert status_line([OTHER], 112, unknown) == "qwen at 8,191 tokens: loaded (2 s)"
    assert len(drawn(OTHER, columns=80, rest=unknown)) == 1


def test_the_status_has_a_line_per_worker_and_one_for_the_run() -> None:
    assert drawn(LOADING, OTHER, columns=100) == [
        "llama at 30,000 tokens  loading 45%  ━━━━━━━━━             12 s",
        "qwen at 8,191 tokens    loaded                             2 s",
        "case 3 of 12, about 3 min 20 s left",
    ]


def test_narrow_terminals_drop_the_bar_then_the_name() -> None:
    assert drawn(LOADING, columns=60)[0] == "llama at 30,000 tokens  loading 45%    12 s"
    assert drawn(LOADING, columns=36)[0] == "llama at 30,00…  loading 45%    12 s"


@given(st.text(max_size=40), st.text(max_size=40), st.integers(20, 200))
def test_the_status_fits_the_terminal(what: str, state: str, columns: int) -> None:
    status = Activity(what=one_line(what), state=one_line(state), began=100.0, fraction=0.5)
    lines = drawn(status, status, columns=columns)
    assert len(lines) == 3
    assert all(cell_len(line) <= columns for line in lines)


def test_remaining_time_scales_earlier_durations_by_the_current_pace() -> None:
    estimate = Estimate(["a", "b", "c"], {"a": 10.0, "b": 20.0, "c": 30.0})
    assert estimate.rest() == 60.0
    estimate.add("a", 15.0)
    estimate.add("a", 5.0)
    estimate.finish("a")
    assert (estimate.done, estimate.rest()) == (1, 100.0)


def test_unknown_tests_are_estimated_by_the_others() -> None:
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


def test_waiting_is_logged_immediately_and_once() -> None:
    urgent = Urgent()
    waiting = Activity(what="host", state="waiting for me", began=1.0, urgent=True)
    assert urgent.select_new([LOADING, waiting]) == [waiting]
    assert urgent.select_new([LOADING, waiting]) == []
    other = Activity(what="host", state="waiting for you", began=1.0, urgent=True)
    assert urgent.select_new([waiting, other]) == [other]


def test_workers_report_to_the_controller() -> None:
    files = StatusFiles()
    try:
        one, two = StatusFile(files.folder, "gw0"), StatusFile(files.folder, "gw1")
        two.write(OTHER)
        one.write(LOADING)
        assert files.statuses() == [LOADING, OTHER]
        one.write(None)
        assert files.statuses() == [OTHER]
        files.remove("gw1")
        assert files.statuses() == []
    finally:
        files.close()
    one.write(LOADING)
    assert files.statuses() == []


def test_log_lines_are_rate_limited(
    monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    enough = Event()
    asked: list[bool] = []

    def line(only_urgent: bool) -> str:
        asked.append(only_urgent)
        if len(asked) > 12:
            enough.set()
        return "" if only_urgent else f"line {asked.count(False)}"

    out = StringIO()
    monkeypatch.setattr(pytestconfig.option, "verbose", 0)
    monkeypatch.setattr(display, "_own_stdout", lambda: out)
    monkeypatch.setattr(display, "REDRAW_SECONDS", 0.01)
    monkeypatch.setattr(display, "LINE_SECONDS", 0.04)
    shown = display.Screen(pytestconfig, lambda columns: None, line)
    shown.start()
    assert enough.wait(60)
    shown.stop()
    assert out.getvalue().startswith("\nline 1\n\nline 2\n\nline 3\n")
    assert asked[:8] == 2 * [True, True, True, False]
