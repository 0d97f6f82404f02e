"""A run that is killed at any moment, and what the next run finds of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from tests.end_to_end.project import Project
from tests.standin.http.faults import HttpFault
from tests.standin.llama_server.program import write_llama_server
from tests.standin.llama_server.router import Preset, Router
from tests.standin.lmstudio import StandInModel
from tests.standin.ollama import OllamaServer, Quirks
from tests.standin.openai import OpenAiServer
from tests.standin.tiny_models import write_tiny_model

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


def test_a_router_in_the_middle_of_a_reply(project: Project) -> None:
    pytest.importorskip("xllamacpp")
    manifest(project, "llama-server")
    path = write_tiny_model(project.path / "tiny.gguf")
    hangs = write_llama_server(project.path / "bin", "hangs in prediction", name="hangs")
    presets = {
        "tiny-512": Preset(path, 512, hangs),
        "tiny-1024": Preset(path, 1024),
        "users": Preset(path, 2048, hangs),
    }
    with Router(write_llama_server(project.path / "bin"), presets) as router:
        router.start("users")
        kill_when(
            project,
            lambda: router.address_of("tiny-512") is not None,
            "--lmstrix-host",
            router.host,
        )
        assert router.running() == ["users", "tiny-512"]
        router.presets["tiny-512"] = Preset(path, 512)
        run = project.run("--lmstrix", "--all", "-m", "full", "--lmstrix-host", router.host)
        run.assert_outcomes(passed=2)
        assert router.unloads == ["tiny-512", "tiny-512", "tiny-1024"]
        assert router.running() == ["users"]


def test_a_llama_server_that_has_outlived_its_run(project: Project) -> None:
    pytest.importorskip("xllamacpp")
    exited = subprocess.run(
        [
            sys.executable,
            "-c",
            "from pytest_lmstrix.system import owners as o; print(o.owner_token())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    program = write_llama_server(project.path / "bin", "hangs", name="hangs")
    owners = {"exited": exited.stdout.strip(), "another": "0" * 12 + "-1-1"}
    left, foreign = (
        subprocess.Popen([program], env={**os.environ, "LMSTRIX_OWNER": owner})
        for owner in owners.values()
    )
    project.started += [left, foreign]
    path = write_tiny_model(project.path / "tiny.gguf")
    project.pytester.makeini(
        f"[pytest]\nlmstrix_llama_server = {write_llama_server(project.path / 'bin')}\n"
    )
    project.pytester.makefile(
        ".yaml",
        models=f"models: [{{id: tiny, engine: llama-server, source: '{path}', contexts: [512]}}]\n",
    )
    project.run("--lmstrix", "--all", "-m", "full").assert_outcomes(passed=1)
    assert left.poll() is not None
    assert foreign.poll() is None
