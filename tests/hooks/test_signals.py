"""Runs that are interrupted or killed leave nothing loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.project import Project
from tests.standin.lmstudio import Fault, LmStudioServer, StandInModel
from tests.standin.weights import smollm2

SIGNALS = [signal.SIGINT, signal.SIGTERM]
EXIT_CODES = {signal.SIGINT: 2, signal.SIGTERM: 143}
posix_only = pytest.mark.skipif(
    sys.platform == "win32", reason="there one process cannot send another these signals"
)
PATIENCE_SECONDS = 60


def start(project: Project, *args: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", "--lmstrix", *args]
    process = subprocess.Popen(
        command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    project.started.append(process)
    return process


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


class LlamaRun:
    """A run of the real model; its reply is in progress once `asked` exists."""

    def __init__(self, project: Project) -> None:
        project.pytester.makefile(
            ".yaml",
            models="models: [{id: smollm2, engine: llamacpp, contexts: [8192],"
            f" context_limit: 8192, source: '{smollm2().as_posix()}'}}]",
        )
        project.pytester.makepyfile(
            """
            from pathlib import Path
            def test_long(lmstrix_model):
                Path("asked").touch()
                lmstrix_model.complete("many words " * 3500, max_tokens=500)
            """
        )
        self.asked = project.path / "asked"
        self.process = start(project, "-k", "test_long")
        self.children: list[psutil.Process] = []

    def see_child(self) -> None:
        """Wait for the engine's process, which loads as soon as it exists."""

        def seen() -> bool:
            assert self.process.poll() is None, self.process.communicate()[0].decode()
            found = psutil.Process(self.process.pid).children(recursive=True)
            self.children = [child for child in found if _serves(child)]
            return bool(self.children)

        wait_until(seen)

    def end(self, number: int) -> int:
        os.kill(self.process.pid, number)
        self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode

    def assert_no_child(self) -> None:
        assert self.children
        _, alive = psutil.wait_procs(self.children, timeout=PATIENCE_SECONDS)
        assert alive == []


def _serves(process: psutil.Process) -> bool:
    try:
        return any("llamacpp" in part and part.endswith("child.py") for part in process.cmdline())
    except psutil.Error:
        return False


@posix_only
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("moment", ["load", "reply"])
def test_a_signal_ends_the_llamacpp_child(
    project: Project, number: signal.Signals, moment: str
) -> None:
    run = LlamaRun(project)
    run.see_child()
    if moment == "reply":
        wait_until(run.asked.exists)
    assert run.end(number) == EXIT_CODES[number]
    run.assert_no_child()


@pytest.mark.parametrize("moment", ["load", "reply"])
def test_killing_the_run_ends_the_llamacpp_child(project: Project, moment: str) -> None:
    run = LlamaRun(project)
    run.see_child()
    if moment == "reply":
        wait_until(run.asked.exists)
    run.process.kill()
    run.process.communicate(timeout=PATIENCE_SECONDS)
    run.assert_no_child()


@posix_only
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("where", "endpoint"), [("load_progress", "loadModel"), ("fragment", "predict")]
)
def test_a_signal_unloads_the_lmstudio_instance(
    project: Project, number: signal.Signals, where: str, endpoint: str
) -> None:
    project.pytester.makefile(".yaml", models="models: [{id: tiny, contexts: [512]}]")
    fault = Fault(where=where, kind="hang")  # type: ignore[arg-type]
    with LmStudioServer([StandInModel(key="tiny")], faults=[fault]) as server:
        process = start(project, "--lmstrix-host", server.host)
        server.wait_for(lambda: server.faults_left() == (), PATIENCE_SECONDS)
        assert server.pending(endpoint)
        process.send_signal(number)
        server.wait_for(lambda: len(server.named("listLoaded")) > 1, PATIENCE_SECONDS)
        server.release()
        output = process.communicate(timeout=PATIENCE_SECONDS)[0].decode()
        assert process.returncode == EXIT_CODES[number], output
        assert server.loaded() == (), output
        assert len(server.ever_loaded("lmstrix-")) == 1
    assert server.violations == []


def test_leftovers_of_a_killed_run_are_swept_by_the_next(project: Project) -> None:
    project.pytester.makefile(".yaml", models="models: [{id: tiny, contexts: [512]}]")
    fault = Fault(where="fragment", kind="hang")
    with LmStudioServer([StandInModel(key="tiny")], faults=[fault]) as server:
        process = start(project, "--lmstrix-host", server.host)
        server.wait_for(lambda: server.faults_left() == (), PATIENCE_SECONDS)
        process.kill()
        process.communicate(timeout=PATIENCE_SECONDS)
        (left,) = server.loaded()
        server.release()
        project.run("--lmstrix", "--lmstrix-host", server.host).assert_outcomes(passed=1)
        assert server.loaded() == ()
        loads = server.loads()
        first_of_next_run = loads[1].number
        unloaded = [call for call in server.unloads() if call.identifier == left]
        assert unloaded[0].number < first_of_next_run


def test_a_signal_before_anything_is_loaded_ends_the_run(project: Project, tmp_path: Path) -> None:
    project.pytester.makepyfile(
        """
        import signal, pytest
        @pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="no such signal")
        def test_self(lmstrix_model):
            signal.raise_signal(signal.SIGTERM)
        """
    )
    result = project.run_apart("--lmstrix", "-k", "test_self")
    assert result.ret == 143
    assert project.engine_log == ["load tiny 512", "unload tiny"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_report_writing_does_not_lose_reports(
    project: Project, number: signal.Signals
) -> None:
    project.engine(tiny="")
    project.manifest("[{id: tiny, contexts: [512]}]")
    project.pytester.makeconftest(
        project.path.joinpath("conftest.py").read_text(encoding="utf-8")
        + f"""
import signal
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish():
    signal.raise_signal({int(number)})
"""
    )
    process = start(project)
    output = process.communicate(timeout=PATIENCE_SECONDS)[0].decode()
    assert process.returncode == EXIT_CODES[number], output
    assert "Traceback" not in output
    assert " 1 passed" in output
    assert (project.path / "reports" / "report.html").exists()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("ending", ["pass", "while True: time.sleep(0.01)"])
def test_a_signal_right_after_locking_releases_the_lock(
    project: Project, number: signal.Signals, ending: str
) -> None:
    logging = (
        "def get_logger(lock, number):\n"
        "    lock.acquire()\n"
        "    signal.raise_signal(number)\n"
        "    try:\n"
        f"        {ending}\n"
        "    finally:\n"
        "        lock.release()\n"
    )
    project.engine(tiny="")
    project.manifest("[{id: tiny, contexts: [512]}]")
    project.pytester.makepyfile(
        f"""
        import signal, threading, time
        from pathlib import Path

        def test_own(lmstrix_model):
            lock, logging = threading.Lock(), dict(__name__="logging", signal=signal, time=time)
            exec({logging!r}, logging)
            try:
                logging["get_logger"](lock, {int(number)})
                time.sleep({PATIENCE_SECONDS})
            finally:
                Path("taken").write_text(str(lock.locked()))
        """
    )
    process = start(project, "-k", "test_own")
    output = process.communicate(timeout=PATIENCE_SECONDS)[0].decode()
    assert process.returncode == EXIT_CODES[number], output
    assert (project.path / "taken").read_text() == "False"
    assert project.engine_log == ["load tiny 512", "unload tiny"]
