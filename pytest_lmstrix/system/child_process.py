"""Child processes: everything about them that differs between operating systems.

A `Child` is kept apart from the terminal (its parent handles Ctrl-C), and nothing that it
writes can block it. Its standard input is a pipe that only this process holds: a child that exits
at end of file there cannot outlive its parent, however that exits.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

_LOG_LINES = 200
_LOG_LINE_BYTES = 4096
_MOST_PROGRESS_LINES = 20_000
"""Logged by no load: what goes on logging after that makes no progress by it."""
_POLL_SECONDS = 0.02
_KILL_SECONDS = 30.0
"""Time limit for a killed process to exit and release its memory."""
_CREATION_FLAGS = 0
if sys.platform == "win32":
    _CREATION_FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW

_NTSTATUS = {
    0xC0000005: "access violation",
    0xC0000017: "out of memory",
    0xC000001D: "illegal instruction",
    0xC00000FD: "stack overflow",
    0xC000012D: "out of memory: commit limit reached",
    0xC000013A: "Ctrl-C",
    0xC0000374: "heap corruption",
    0xC0000409: "abort",
}
"""Source: [MS-ERREF], NTSTATUS values."""


_DRAIN_SECONDS = 10.0
"""Time limit for reading the remaining output of an exited child, on a busy machine."""


class Child:
    """A process and its descendants, ended together.

    `lines` receives the lines of its standard output and then `None`; of its standard error the
    beginning and the end are kept.
    """

    def __init__(
        self,
        command: Sequence[str],
        first_line: bytes,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start `command` and write `first_line` to it, which stays out of process lists.

        `environment` takes the place of that of this process.

        Raises:
            OSError: It cannot be started.
        """
        self.lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.peak_memory_bytes: int | None = None
        """Largest resident memory of any one process in it, weights mapped from disk included.

        Kept by the system on Linux and Windows, elsewhere the largest seen by `activity`.
        """
        self._log_lines = 0
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque(maxlen=_LOG_LINES)
        self._oom_kills = _oom_kills()
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            creationflags=_CREATION_FLAGS,
            start_new_session=True,  # ignored on Windows
        )
        try:
            self._tree = [psutil.Process(self._process.pid)]
            self._readers = [
                _start(self._read_lines, self._process.stdout),
                _start(self._read_log, self._process.stderr),
            ]
            with contextlib.suppress(OSError):  # it has exited; the exit status has the cause
                _pipe(self._process.stdin).write(first_line)
                _pipe(self._process.stdin).flush()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    @property
    def exit_status(self) -> int | None:
        """Exit status as of `subprocess`, negative for a signal; `None` while it runs.

        A status above 128 means a signal, too: a supervisor passes it on like a shell.
        """
        status = self._process.poll()
        if sys.platform != "win32" and status is not None and status > 128:
            return 128 - status
        return status

    @property
    def killed_for_memory(self) -> bool:
        """Whether the system killed it for lack of memory, by its count of such kills (Linux)."""
        return self.exit_status == -9 and self._oom_kills != _oom_kills()

    def wait(self, timeout_seconds: float) -> int | None:
        """Wait up to `timeout_seconds` for the exit, and return the exit status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_seconds)
        return self.exit_status

    def log(self) -> list[str]:
        """Return the first and the last lines that it wrote to standard error."""
        if self._process.poll() is not None:
            for reader in self._readers:
                # A pipe still open after that was inherited by another process.
                reader.join(_DRAIN_SECONDS)
        return [line.decode(errors="replace").rstrip() for line in [*self._head, *self._tail]]

    def forget_log(self) -> None:
        """Clear the log."""
        self._head.clear()
        self._tail.clear()

    def activity(self) -> tuple[int, ...]:
        """Return figures that change while it allocates memory, reads from disk or logs.

        Processor time is not among them: a child spinning in a deadlock uses that, too.
        """
        figures = [min(self._log_lines, _MOST_PROGRESS_LINES)]
        for process in self._find_tree():
            with contextlib.suppress(psutil.Error):
                figures.append(process.memory_info().rss)
                figures.append(_bytes_read(process))
                self.peak_memory_bytes = max(self.peak_memory_bytes or 0, _peak_bytes(process))
        return tuple(figures)

    def end(self, patience_seconds: float = 5.0) -> list[int]:
        """End it and its descendants: gracefully by end of file, then by force.

        Return the ids of the processes that survive even that. Idempotent.
        """
        self.activity()
        with contextlib.suppress(OSError):
            _pipe(self._process.stdin).close()
        alive = self._wait_for_end(patience_seconds)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if alive:
            alive = self._wait_for_end(_KILL_SECONDS)
        if not alive:
            self.log()
        return [process.pid for process in alive]

    def _find_tree(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            known = set(self._tree)
            found = self._tree[0].children(recursive=True)
            self._tree += [process for process in found if process not in known]
        return self._tree

    def _wait_for_end(self, timeout_seconds: float) -> list[psutil.Process]:
        """Wait up to `timeout_seconds`, and return the processes still alive."""
        # Not `psutil.wait_procs`: it waits for zombies, which only their parent can reap, and
        # takes the exit status of the root away from `subprocess`.
        deadline = time.monotonic() + timeout_seconds
        while (alive := self._alive()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return alive

    def _alive(self) -> list[psutil.Process]:
        root, *others = self._tree
        alive = [root] if self._process.poll() is None else []
        return alive + [process for process in others if _runs(process)]

    def _read_lines(self, stream: IO[bytes]) -> None:
        for line in stream:
            self.lines.put(line)
        self.lines.put(None)

    def _read_log(self, stream: IO[bytes]) -> None:
        while line := stream.readline(_LOG_LINE_BYTES):
            self._log_lines += 1
            (self._head if len(self._head) < _LOG_LINES else self._tail).append(line)


def describe_exit(status: int) -> str:
    """Describe an exit status, such as `killed by SIGKILL` or `exit status 1`."""
    if -128 < status < 0:
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"
    if status & 0xC0000000 == 0xC0000000:
        code = status & 0xFFFFFFFF
        return f"exit status {code:#010x} ({_NTSTATUS.get(code, 'a Windows exception')})"
    return f"exit status {status}"


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "opened as a pipe"
    return stream


def _start(read: Callable[[IO[bytes]], None], stream: IO[bytes] | None) -> threading.Thread:
    def run() -> None:
        with _pipe(stream) as pipe:
            read(pipe)

    thread = threading.Thread(target=run, name="lmstrix-child-output", daemon=True)
    thread.start()
    return thread


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _bytes_read(process: psutil.Process) -> int:
    if sys.platform == "darwin":
        return 0  # not available there
    return process.io_counters().read_bytes


def _peak_bytes(process: psutil.Process) -> int:
    if sys.platform == "win32":
        return int(process.memory_info().peak_wset)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    return int(process.memory_info().rss)


def _oom_kills() -> int | None:
    """Return how many processes the system has killed for lack of memory; `None` where unknown.

    Source: `oom_kill` in /proc/vmstat, proc(5).
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            for line in Path("/proc/vmstat").read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return None
