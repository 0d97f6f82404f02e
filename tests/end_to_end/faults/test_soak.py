"""Repeated runs on one registry, each interrupted at a random point.

`LMSTRIX_SOAK_RUNS` is the number of runs per engine, `LMSTRIX_SOAK_SEED` repeats a soak.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time

import msgspec
import psutil
import pytest

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.system.host_lock import host_lock
from tests.end_to_end.faults.conftest import ours, stand_in
from tests.end_to_end.project import Project
from tests.standin.lmstudio import Fault, LmStudioServer
from tests.standin.weights import smollm2

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        sys.platform == "win32", reason="there one process cannot send another these signals"
    ),
]
RUNS = int(os.environ.get("LMSTRIX_SOAK_RUNS", "6"))
SEED = int(os.environ.get("LMSTRIX_SOAK_SEED", "0")) or random.randrange(1, 2**32)
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
ENDLESS = 1000
"""The exit status of a hanging run, which prints its stacks."""
MARK = "LMSTRIX_SOAK_MARK"
PATIENCE_SECONDS = 60
SHOWN = re.compile(r"^models\.yaml::test_\w+\[(\S+)-(\d+)\] (?:PASSED|FAILED)", re.M)


class Soak:
    """Runs of one project, and the checks after each of them."""

    def __init__(self, project: Project, host: str, *args: str) -> None:
        self.folder = project.path
        self.host = host
        self._project = project
        self._mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self._registry = self.folder / "reports" / "registry.jsonl"
        self._command = [sys.executable, "-m", "pytest", "-v", "--lmstrix", "--all", *args]
        self._seen = 0

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "output.txt").open("wb") as output:
            process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {MARK: self._mark},
            )
        self._project.started.append(process)
        return process

    def output(self) -> str:
        return (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Check that no process and no lock is left, and that shown results are recorded."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while left := self._processes():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        with host_lock(self.host, timeout=0):
            pass
        lines = self._lines()
        recorded = {(each.model, str(each.context_length)) for each in lines[self._seen :]}
        assert set(SHOWN.findall(self.output())) <= recorded
        assert list(self.folder.glob("reports/registry.corrupt-*")) == []
        self._seen = len(lines)

    def _lines(self) -> list[Result]:
        if not self._registry.exists():
            return []
        lines = self._registry.read_bytes().split(b"\n")[:-1]  # a torn last line was not recorded
        return [msgspec.json.decode(line, type=Result) for line in lines]

    def _processes(self) -> list[psutil.Process]:
        return [each for each in psutil.process_iter() if self._is_ours(each)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self._mark
        except psutil.Error:
            return False


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    process.send_signal(number)
    try:
        return process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # makes it dump its stacks
        process.wait()
        return ENDLESS


def stretched() -> list[Fault]:
    """Delay loads and replies, so that they take most of the run."""
    places = ("load_progress", "prefill", "fragment", "unloadModel")
    return [Fault(where=where, kind="slow", seconds=0.03, times=10**9) for where in places]  # type: ignore[arg-type]


def test_lmstudio(project: Project) -> None:
    chance = random.Random(SEED)
    models = ["one", "two", "three"]
    entries = ", ".join(f"{{id: {each}, contexts: [512, 1024]}}" for each in models)
    project.pytester.makefile(".yaml", models=f"models: [{entries}]\n")
    with stand_in(models, faults=stretched()) as server:
        soak = Soak(project, server.host, "--lmstrix-host", server.host)
        calls = finish(soak, server)
        for turn in range(RUNS):
            number, after = chance.choice(SIGNALS), chance.randrange(calls)
            what = f"seed {SEED}, turn {turn}: {number.name} after {after} of {calls} calls"
            begun, killed = len(server.calls), set(ours(server))
            process = soak.start()
            while process.poll() is None and len(server.calls) - begun < after:
                time.sleep(0.002)
            status = end(process, number)
            server.wait_for(lambda: not server.pending("loadModel"), PATIENCE_SECONDS)
            left = set(ours(server)) - killed  # a run that had not started sweeps nothing
            assert number == signal.SIGKILL or not left, f"{what}\n{soak.output()}"
            assert_status(status, number, what, soak.output())
            soak.check()
        finish(soak, server)
        assert server.max_loaded_at_once("lmstrix-") == 1
        assert server.loaded() == ("users",)
    assert server.violations == []


def finish(soak: Soak, server: LmStudioServer) -> int:
    """Check that an uninterrupted run passes and leaves nothing; return its calls."""
    begun = len(server.calls)
    assert soak.start().wait(PATIENCE_SECONDS) == 0, soak.output()
    assert " 6 passed" in soak.output()
    assert ours(server) == []
    soak.check()
    return len(server.calls) - begun


def assert_status(status: int, number: signal.Signals, what: str, output: str) -> None:
    # 0: the run had finished. Python's own exit statuses: it had not started.
    expected = {0, {2: 2, 15: 143, 9: -9}[number], -number, 128 + number}
    assert status in expected, f"{what}: exit status {status}\n{output}"


def test_llamacpp(project: Project) -> None:
    chance = random.Random(SEED)
    source = smollm2().as_posix()
    entries = ", ".join(
        f"{{id: {each}, engine: llamacpp, source: '{source}', contexts: [512],"
        " context_limit: 4096, load: {threads: 1}}"
        for each in ("one", "two")
    )
    project.pytester.makefile(".yaml", models=f"models: [{entries}]\n")
    soak = Soak(project, "local")
    began = time.monotonic()
    assert soak.start().wait(PATIENCE_SECONDS) == 0, soak.output()
    seconds = time.monotonic() - began
    for turn in range(RUNS):
        number, after = chance.choice(SIGNALS), chance.random() * seconds
        process = soak.start()
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            status = end(process, number)
            what = f"seed {SEED}, turn {turn}: {number.name} after {after:.2f} s"
            assert_status(status, number, what, soak.output())
        soak.check()
    assert soak.start().wait(PATIENCE_SECONDS) == 0, soak.output()
    soak.check()
    assert " 2 passed" in soak.output()
