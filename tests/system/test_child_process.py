"""Child processes: no blocking on pipes, no orphans, and readable exit statuses."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

import psutil
import pytest

from pytest_lmstrix.system.child_process import Child, describe_exit

WAIT = "import sys; sys.stdin.read()"
signals = pytest.mark.skipif(sys.platform == "win32", reason="there are no signals on Windows")


def python(code: str, first_line: bytes = b"") -> Child:
    return Child([sys.executable, "-c", code], first_line)


def test_a_child_receives_its_first_line_and_its_output_is_read() -> None:
    child = python("print(input()[::-1]); raise SystemExit(3)", b"secret\n")
    assert child.lines.get(timeout=60) == b"terces\n"
    assert child.lines.get(timeout=60) is None
    assert child.wait(60) == 3
    assert child.end() == []


def test_a_waiting_child_exits_at_end_of_file() -> None:
    child = python(WAIT)
    assert child.exit_status is None
    assert child.wait(0.0) is None
    assert child.end(60) == []
    assert child.exit_status == 0
    assert child.end() == []


def test_descendants_exit_with_the_child() -> None:
    child = python(
        "import subprocess, sys, time\n"
        "deaf = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(deaf.pid, flush=True)\n"
        "time.sleep(600)"
    )
    line = child.lines.get(timeout=60)
    assert line is not None
    deaf = psutil.Process(int(line))
    assert child.end(0.1) == []
    assert not psutil.wait_procs([deaf], timeout=60)[1]


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is of Linux")
def test_a_dead_descendant_without_a_reaper_is_not_waited_for() -> None:
    set_child_subreaper = 36
    child = python(
        "import subprocess, sys\n"
        "deaf = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(deaf.pid, flush=True)\n"
        "sys.stdin.read()"
    )
    line = child.lines.get(timeout=60)
    assert line is not None
    libc = ctypes.CDLL(None)
    assert libc.prctl(set_child_subreaper, 1, 0, 0, 0) == 0  # this process inherits the orphan
    try:
        assert child.end(0.1) == []
        assert child.exit_status in (0, -signal.SIGKILL)
        assert psutil.Process(int(line)).status() == psutil.STATUS_ZOMBIE
    finally:
        libc.prctl(set_child_subreaper, 0, 0, 0, 0)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(int(line), 0)


def test_a_flood_on_stderr_does_not_block_and_keeps_head_and_tail() -> None:
    child = python(
        "import sys\n"
        "for i in range(100_000): print('line', i, file=sys.stderr)\n"
        "sys.stderr.write('x' * 100_000)\n"
        "sys.stderr.buffer.write(b'\\xff')"
    )
    assert child.wait(60) == 0
    log = child.log()
    assert log[0] == "line 0"
    assert log[-1].endswith("\ufffd")
    assert sum(map(len, log)) < 1_000_000
    child.forget_log()
    assert child.log() == []
    child.end()


def test_activity_changes_only_with_memory_and_log() -> None:
    child = python(
        "import sys\nprint('up', flush=True)\nfor line in sys.stdin: pass\n",
    )
    child.lines.get(timeout=60)
    assert child.activity() == child.activity()
    assert (child.peak_memory_bytes or 0) > 1e6
    child.end(60)


@signals
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(128 + 9)"])
def test_death_by_a_signal_is_reported_through_a_supervisor(end: str) -> None:
    child = python(f"import os; {end}")
    assert child.wait(60) == -9
    assert not child.killed_for_memory
    child.end()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what it kills")
def test_an_out_of_memory_kill_is_detected_by_the_system_counter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = iter([7, 8])
    monkeypatch.setattr("pytest_lmstrix.system.child_process._oom_kills", lambda: next(counts))
    child = python("import os; os.kill(os.getpid(), 9)")
    child.wait(60)
    assert child.killed_for_memory
    child.end()


def test_a_program_that_cannot_be_started_is_an_error() -> None:
    with pytest.raises(OSError, match="no-such-program"):
        Child(["no-such-program"], b"")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (1, "exit status 1"),
        (0xC0000005, "exit status 0xc0000005 (access violation)"),
        (0xC0000017 - 2**32, "exit status 0xc0000017 (out of memory)"),
        (0xC0FFEE00, "exit status 0xc0ffee00 (a Windows exception)"),
        pytest.param(-9, "killed by SIGKILL", marks=signals),
        pytest.param(-signal.SIGTERM, "killed by SIGTERM", marks=signals),
        pytest.param(-99, "killed by signal 99", marks=signals),
    ],
)
def test_exit_statuses_are_readable(status: int, words: str) -> None:
    assert describe_exit(status) == words
