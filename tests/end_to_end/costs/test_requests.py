"""What a run asks of a server, call by call: each figure is a decision."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx
import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.engines.lmstudio import connection
from tests.end_to_end.project import Project
from tests.standin.lmstudio import LmStudioServer, OutOfMemory, StandInModel
from tests.standin.ollama import OllamaServer
from tests.standin.openai import Dialect, OpenAiServer
from tests.standin.weights import smollm2

SESSION = {"listDownloadedModels": 1, "version": 1, "listLoaded": 2}
"""Once in a run; the listing finds what dead runs have left."""
LOAD = {"loadModel": 1, "getModelInfo": 1, "getLoadConfig": 1}
"""The granted context and the settings in force are read back after every load."""
UNLOAD = {"unloadModel": 1, "listLoaded": 1}
"""Every unload is confirmed by a listing."""
REFUSED_LOAD = {"loadModel": 1, "listLoaded": 1}
"""The listing shows that nothing was left, and what others hold."""


def total(*parts: tuple[int, dict[str, int]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for times, part in parts:
        counts.update({name: times * number for name, number in part.items()})
    return dict(counts)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no pause of a busy machine make an answer count as old."""
    monkeypatch.setattr(connection, "FRESH_SECONDS", 600.0)


def calls(project: Project, check: str, contexts: list[int], *behaviours: Any) -> dict[str, int]:
    """Return how often each endpoint of LM Studio is called in a run of one check."""
    project.pytester.makefile(".yaml", models=f"models: [{{id: a, contexts: {contexts}}}]\n")
    with LmStudioServer([StandInModel(key="a", behaviours=behaviours)]) as server:
        args = ("--lmstrix", "-m", check, "--lmstrix-host", server.host)
        project.run(*args).assert_outcomes(passed=len(contexts))
        assert server.loaded() == ()
        return dict(Counter(call.endpoint for call in server.calls))


@pytest.mark.parametrize(
    ("check", "contexts", "questions"), [("fast", [512], 1), ("full", [512, 1024], 2)]
)
def test_a_case_in_lm_studio(
    project: Project, check: str, contexts: list[int], questions: int
) -> None:
    each = total((1, LOAD), (1, UNLOAD), (questions, {"predict": 1}))
    assert calls(project, check, contexts) == total((1, SESSION), (len(contexts), each))


def test_a_search_in_lm_studio(project: Project) -> None:
    found = calls(project, "limit", [16_384], OutOfMemory(above=10_000))
    loads, refused = found["loadModel"], found["loadModel"] - found["getModelInfo"]
    each = total((1, LOAD), (1, UNLOAD), (1, {"predict": 2}))
    assert (loads, refused) == (11, 6)
    assert found == total((1, SESSION), (refused, REFUSED_LOAD), (loads - refused, each))


def test_a_ladder_in_lm_studio(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.randbits", lambda bits: 0)  # the counts depend on the seed
    found = calls(project, "deep", [1024, 2048, 4096])
    counts = found.pop("countTokens")
    asked = {"predict": 3 * (5 + 5)}  # with each fact's prose, and without
    assert found == total((1, SESSION), (1, LOAD), (1, UNLOAD), (1, asked))
    assert counts < 60  # to cut the text to size; none for a prompt


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The HTTP requests of this process."""
    counts: Counter[str] = Counter()
    send = httpx.Client.send

    def counted(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        counts[f"{request.method} {request.url.path}"] += 1
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", counted)
    return counts


def test_a_case_in_ollama(project: Project, asked: Counter[str]) -> None:
    models = "models: [{id: 'tiny:latest', engine: ollama, contexts: [512]}]\n"
    project.pytester.makefile(".yaml", models=models)
    with OllamaServer([StandInModel(key="tiny:latest")]) as server:
        project.run("--lmstrix", "--lmstrix-host", server.host).assert_outcomes(passed=1)
        assert server.loaded == {}
    session = {"GET /api/tags": 1, "GET /api/version": 1}
    load = {"GET /api/ps": 2, "POST /api/generate": 1}  # it is free; what was granted
    question = {"GET /api/ps": 1, "POST /api/generate": 1}  # no other client has taken it
    unload = {"GET /api/ps": 2, "POST /api/generate": 1}  # it is ours; it is gone
    assert asked == total((1, session), (1, load), (2, question), (1, unload))


@pytest.mark.parametrize("dialect", [Dialect.VLLM, Dialect.LLAMACPP])
def test_a_case_of_a_server(project: Project, asked: Counter[str], dialect: Dialect) -> None:
    with OpenAiServer(StandInModel(key="tiny"), 1024, dialect) as server:
        project.pytester.makefile(
            ".yaml",
            models=f"models: [{{id: tiny, engine: openai, url: '{server.url}', contexts: [512]}}]",
        )
        project.run("--lmstrix").assert_outcomes(passed=1)
    is_llamacpp = dialect is Dialect.LLAMACPP
    session = {"GET /v1/models": 1, "GET /version": 1}
    load = {"GET /v1/models": 1}
    if is_llamacpp:
        session["GET /props"] = load["GET /props"] = 1  # the version; what a request gets
    assert asked == total((1, session), (1, load), (2, {"POST /v1/completions": 1}))


def test_a_case_in_llama_cpp(project: Project, asked: Counter[str]) -> None:
    models = f"{{id: tiny, engine: llamacpp, source: '{smollm2().as_posix()}', contexts: [512]}}"
    project.pytester.makefile(".yaml", models=f"models: [{models}]\n")
    project.run("--lmstrix").assert_outcomes(passed=1)
    assert asked == {"GET /props": 1, "POST /completion": 2}
