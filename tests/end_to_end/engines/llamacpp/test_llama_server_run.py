"""Whole runs with the user's own `llama-server`, and with a running router of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pytest

pytest.importorskip("xllamacpp")

from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.plan import build
from tests.end_to_end.project import Project
from tests.standin.llama_server.program import BUILD, llama_server, write_llama_server
from tests.standin.llama_server.router import Preset, Router
from tests.standin.tiny_models import write_tiny_model
from tests.standin.weights import smollm2

PATIENCE = 60.0
CLAIMED = 16_384
"""Declared above the 8,192 tokens that the model was trained for."""


def manifest(project: Project, path: Path, *engines: str, more: str = "contexts: [512]") -> None:
    entries = "".join(
        f"  - {{id: {engine}-model, engine: {engine}, source: '{path.as_posix()}',"
        f" load: {{threads: 1}}, {more}}}\n"
        for engine in engines
    )
    project.pytester.makefile(".yaml", models=f"models:\n{entries}")


def arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def use(project: Project, program: Path) -> None:
    project.pytester.makeini(f"[pytest]\nlmstrix_llama_server = {program}\n")


@pytest.mark.parametrize(
    "smaller", [(1_024,), pytest.param((1_024, 2_048, 4_096), marks=pytest.mark.long)], ids=len
)
def test_it_gives_the_verdicts_of_the_embedded_engine(
    project: Project, monkeypatch: pytest.MonkeyPatch, smaller: tuple[int, ...]
) -> None:
    # So small a model sometimes confuses facts: a fixed text keeps the test deterministic.
    monkeypatch.setattr(build.secrets, "randbits", lambda bits: 1)
    use(project, llama_server(project.path / "bin"))
    sizes = [*smaller, CLAIMED]
    manifest(project, smollm2(), "llamacpp", "llama-server", more=f"contexts: {sizes}")
    project.run("-m", "full or deep")
    found = defaultdict(dict)
    for result in project.results:
        about = (result.check, result.context_length, result.granted_context_length)
        found[result.engine][about] = (result.verdict, result.recall, result.prompt_tokens)
    assert found["llama-server"] == found["llamacpp"]
    assert {verdict for verdict, *_ in found["llama-server"].values()} == {
        Verdict.OK,
        Verdict.CONTEXT_NOT_GRANTED,
    }
    assert len(found["llama-server"]) == 2 * len(sizes)
    if "LMSTRIX_TEST_LLAMA_SERVER" not in os.environ:
        ours = [result for result in project.results if result.engine == "llama-server"]
        assert {result.engine_version for result in ours} == {BUILD}
        assert all("device: CPU" in result.notes for result in ours)


def test_the_limit_is_found(project: Project) -> None:
    use(project, llama_server(project.path / "bin"))
    path = write_tiny_model(project.path / "tiny.gguf")
    manifest(project, path, "llamacpp", "llama-server", more="context_limit: 8192")
    project.run("-m", "limit", "--lmstrix-ctx", "8192").assert_outcomes(passed=2)
    limits = {
        result.engine: result.context_length
        for result in project.results
        if result.origin == "case"
    }
    assert limits["llama-server"] == limits["llamacpp"]


def test_a_missing_program_stops_its_models_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(project.path))
    path = write_tiny_model(project.path / "tiny.gguf")
    manifest(project, path, "llama-server", "llamacpp", more="contexts: [512, 768]")
    result = project.run("-m", "full")
    result.assert_outcomes(passed=2, errors=1, skipped=1)  # the program is looked for once
    result.stdout.fnmatch_lines(["*no llama-server on PATH*lmstrix_llama_server*"])
    assert {each.engine for each in project.results} == {"llamacpp"}


def test_a_flag_that_the_program_lacks_does_not_count_against_the_model(project: Project) -> None:
    use(project, write_llama_server(project.path / "bin"))
    path = write_tiny_model(project.path / "tiny.gguf")
    manifest(project, path, "llama-server")
    text = Path(project.path, "models.yaml").read_text(encoding="utf-8")
    Path(project.path, "models.yaml").write_text(
        text.replace("threads: 1", "extra_args: [--new-flag]"), encoding="utf-8"
    )
    result = project.run("-m", "full")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*does not know --new-flag*"])


def test_a_scan_lists_files_once_for_the_engine_that_is_used(project: Project) -> None:
    use(project, write_llama_server(project.path / "bin"))
    write_tiny_model(project.path / "files" / "one.gguf")
    ini = Path(project.path, "tox.ini")
    ini.write_text(f"{ini.read_text()}\nlmstrix_gguf_dirs = files\n", encoding="utf-8")
    Path(project.path, "models.yaml").unlink()
    project.run("--lmstrix-scan", "--lmstrix-engine", "llama-server")
    text = Path(project.path, "models.yaml").read_text(encoding="utf-8")
    assert text.count("id: one") == 1
    assert "llamacpp" not in text
    result = project.run("--lmstrix-list", "--lmstrix-engine", "llama-server")
    result.stdout.fnmatch_lines(["*one*"])
    again = project.run("--lmstrix-scan")
    again.stdout.fnmatch_lines(["*0 new models*"])


def test_a_scan_names_a_missing_program(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project.path))
    result = project.run("--lmstrix-scan", "--lmstrix-engine", "llama-server")
    result.stdout.fnmatch_lines(["llama-server *not asked: no llama-server on PATH*"])


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_killed_run_leaves_no_server(project: Project) -> None:
    use(project, write_llama_server(project.path / "bin", "hangs in prediction"))
    manifest(project, write_tiny_model(project.path / "tiny.gguf"), "llama-server")
    command = [sys.executable, "-m", "pytest", "-m", "full"]
    run = subprocess.Popen(command, cwd=project.path, stdout=subprocess.DEVNULL)
    servers: list[psutil.Process] = []
    deadline = time.monotonic() + PATIENCE
    while not servers:
        assert time.monotonic() < deadline
        assert run.poll() is None
        servers = [
            each
            for each in psutil.Process(run.pid).children(recursive=True)
            if "--model" in arguments(each)
        ]
        time.sleep(0.05)
    run.kill()
    run.wait()
    assert not psutil.wait_procs(servers, timeout=PATIENCE)[1]


def test_a_router_is_tested_by_its_address(project: Project) -> None:
    path = write_tiny_model(project.path / "tiny.gguf")
    presets = {"tiny-512": Preset(path, 512), "tiny-1024": Preset(path, 1024)}
    project.pytester.makefile(
        ".yaml", models="models: [{id: tiny, engine: llama-server, contexts: [512, 1024]}]"
    )
    with Router(write_llama_server(project.path / "bin"), presets) as router:
        scanned = project.run("--lmstrix-scan", "--lmstrix-host", router.host)
        scanned.stdout.fnmatch_lines(["*llama-server 127.0.0.1:*1 model*"])
        project.run("-m", "full", "--lmstrix-host", router.host).assert_outcomes(passed=2)
        assert router.running() == []
        assert sorted(router.loads) == sorted(router.unloads) == ["tiny-1024", "tiny-512"]
    assert {result.engine_version for result in project.results} == {BUILD}
