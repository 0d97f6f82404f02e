"""A run that is killed at any moment, and what the next run finds of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from tests.end_to_end.project import Project
from tests.standin.http.faults import HttpFault
from tests.standin.lmstudio import StandInModel
from tests.standin.ollama import OllamaServer, Quirks
from tests.standin.openai import OpenAiServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")

TINY = StandInModel(key="tiny")
USERS = StandInModel(key="users")
PATIENCE_SECONDS = 60.0
HANGS = (HttpFault(model="tiny", where="fragment", kind="hang"),)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def kill_when(project: Project, condition: Callable[[], bool], *args: str) -> None:
    """Start a run, and kill it with SIGKILL as soon as `condition` holds."""
    command = [sys.executable, "-m", "pytest", "--lmstrix", "--all", "-m", "full", *args]
    with (project.path / "killed.txt").open("wb") as output:
        process = subprocess.Popen(command, cwd=project.path, stdout=output, stderr=output)
    project.started.append(process)
    wait_until(condition)
    process.kill()
    process.wait(PATIENCE_SECONDS)


def manifest(project: Project, engine: str) -> None:
    project.pytester.makefile(
        ".yaml", models=f"models: [{{id: tiny, engine: {engine}, contexts: [512, 1024]}}]\n"
    )


@pytest.mark.parametrize("aborts", [True, False], ids=["aborted", "loaded after all"])
def test_ollama_in_the_middle_of_a_load(project: Project, aborts: bool) -> None:
    manifest(project, "ollama")
    quirks = Quirks(load_seconds=2.0, aborts_loads=aborts)
    with OllamaServer([TINY, USERS], quirks) as server:
        server.use("users", 2048, 3600)
        kill_when(
            project,
            lambda: server.machine.attempts["load tiny:latest"] == 1,
            "--lmstrix-host",
            server.host,
        )
        wait_until(lambda: server.events[1:] == ["aborted" if aborts else "load tiny:latest 512"])
        left = {} if aborts else {"tiny:latest": 512}
        assert server.loaded == left | {"users:latest": 2048}
        run = project.run("--lmstrix", "--all", "-m", "full", "--lmstrix-host", server.host)
        run.assert_outcomes(passed=2)
        swept = [] if aborts else ["unload tiny:latest"]
        assert server.events[2:][: len(swept) + 1] == [*swept, "load tiny:latest 512"]
        assert server.loaded == {"users:latest": 2048}


def test_ollama_in_the_middle_of_a_reply(project: Project) -> None:
    manifest(project, "ollama")
    with OllamaServer([TINY, USERS], faults=HANGS) as server:
        server.use("users", 2048, 3600)
        kill_when(project, lambda: not server.faults.left(), "--lmstrix-host", server.host)
        assert server.loaded == {"tiny:latest": 512, "users:latest": 2048}
        run = project.run("--lmstrix", "--all", "-m", "full", "--lmstrix-host", server.host)
        run.assert_outcomes(passed=2)
        assert server.events[2] == "unload tiny:latest"
        assert server.loaded == {"users:latest": 2048}


def test_ollama_has_loaded_it_again_for_another_client_since(project: Project) -> None:
    manifest(project, "ollama")
    with OllamaServer([TINY], faults=HANGS) as server:
        kill_when(project, lambda: not server.faults.left(), "--lmstrix-host", server.host)
        server.use("tiny", 2048, 3600)
        project.run("--lmstrix", "--all", "-m", "full", "--lmstrix-host", server.host)
        assert server.loaded == {"tiny:latest": 2048}


def test_an_openai_server_has_nothing_to_unload(project: Project) -> None:
    manifest(project, "openai")
    with OpenAiServer(TINY, 1024, http_faults=HANGS) as server:
        kill_when(project, lambda: not server.http_faults.left(), "--lmstrix-host", server.host)
        before = len(server.requests)
        run = project.run("--lmstrix", "--all", "-m", "full", "--lmstrix-host", server.host)
        run.assert_outcomes(passed=2)
        paths = {path for path, _ in server.requests[before:]}
        assert paths <= {"/v1/models", "/version", "/tokenize", "/v1/completions"}
