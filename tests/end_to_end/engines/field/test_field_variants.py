"""Reports from the field in another engine, phase or order: who is to blame stays the same."""

from __future__ import annotations

import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project
from tests.standin.lmstudio import (
    Fault,
    GrantsMore,
    LmStudioServer,
    OutOfMemory,
    ServerError,
    StandInModel,
)
from tests.standin.lmstudio.models.behaviours import FailsInChat, FailsToLoad
from tests.standin.lmstudio.server import UserInstance
from tests.standin.ollama import OllamaServer

LINK = "LM Link connection entered error state: peer_keepalive_timeout"
PROJECTOR = (
    "llama-server process has terminated: exit status 1: error loading model: clip_init: failed to"
    " load model '/blobs/sha256-1': unable to find tensor v.blk.0.attn_out"
)
DIED = "Engine protocol runtime llama-server for {} exited before becoming healthy. exitCode=1"
NAMES = ("PRE32ZZ/jCnkhsg0CoAX0CuI", "05ojjodwMEcYta2ebJ+aEDEu", "ePqBSKhkrxFOqQr4iQWYg7Gb")


def in_ollama(project: Project, *models: StandInModel, prompts: str = "completion") -> list[str]:
    """Run all sizes, and return what the server did."""
    entries = ", ".join(
        f"{{id: '{each.key}', contexts: [512, 1024], prompts: {prompts}}}" for each in models
    )
    project.pytester.makefile(
        ".yaml", models=f"defaults: {{engine: ollama}}\nmodels: [{entries}]\n"
    )
    with OllamaServer(models) as server:
        project.run("--lmstrix", "--all", f"--lmstrix-host={server.host}")
        return server.machine.events


def in_lm_studio(
    project: Project, server: LmStudioServer, *ids: str, contexts: str = "[512]"
) -> pytest.RunResult:
    entries = ", ".join(f"{{id: {each}, contexts: {contexts}}}" for each in ids)
    project.pytester.makefile(".yaml", models=f"models: [{entries}]\n")
    return project.run("--lmstrix", "--all", f"--lmstrix-host={server.host}")


def verdicts(project: Project) -> list[tuple[str, Verdict]]:
    return [(result.model, result.verdict) for result in project.results]


def test_more_than_asked_in_ollama_serves_all_sizes_in_one_load(project: Project) -> None:
    generous = StandInModel(key="tiny:latest", behaviours=(GrantsMore(at_least=8192),))
    assert in_ollama(project, generous)[0] == "load tiny:latest 512"
    assert verdicts(project) == [("tiny:latest", Verdict.OK)] * 2
    assert {each.granted_context_length for each in project.results} == {8192}


def test_a_projector_that_ollama_cannot_load_leaves_its_model_whole(project: Project) -> None:
    broken = StandInModel(key="big:latest", behaviours=(FailsToLoad(text=PROJECTOR),))
    in_ollama(project, broken, StandInModel(key="tiny:latest"))
    assert dict(verdicts(project)) == {
        "big:latest": Verdict.ENGINE_ERROR,
        "tiny:latest": Verdict.OK,
    }


def test_a_template_that_ollama_cannot_execute_is_not_searched(project: Project) -> None:
    raises = FailsInChat(text='template: :3:12: executing "" at <.Messages>: can\'t evaluate field')
    in_ollama(project, StandInModel(key="a:latest", behaviours=(raises,)), prompts="chat")
    assert {each.verdict for each in project.results} == {Verdict.TEMPLATE_ERROR}
    assert {each.origin for each in project.results} == {"case"}


def test_an_engine_that_dies_under_a_new_name_each_time_is_the_hosts_trouble(
    project: Project,
) -> None:
    models = [
        StandInModel(key=f"m{n}", behaviours=(FailsToLoad(text=DIED.format(name)),))
        for n, name in enumerate(NAMES)
    ]
    with LmStudioServer(models) as server:
        result = in_lm_studio(project, server, "m0", "m1", "m2")
    result.stdout.fnmatch_lines(["*The same words from 3 models in a row*"])
    # The newest lines of each model.
    assert dict(verdicts(project)) == dict.fromkeys(("m0", "m1", "m2"), Verdict.HOST_TROUBLE)


def test_a_link_that_is_lost_in_an_answer_is_unreachable(project: Project) -> None:
    fault = Fault(where="predict", kind="error", error=ServerError(title=LINK), times=9)
    linked = StandInModel(key="linked", device="attic")
    with LmStudioServer([linked], faults=[fault], version="0.4.24") as server:
        result = in_lm_studio(project, server, "linked")
    result.assert_outcomes(errors=1)
    assert not (project.path / "reports" / "registry.jsonl").exists()


@pytest.mark.parametrize("at", ["load", "predict"])
def test_memory_that_a_user_holds_is_the_hosts_at_a_load_and_in_an_answer(
    project: Project, at: str
) -> None:
    behaviour = OutOfMemory(above=256, at="load" if at == "load" else "predict")
    models = [
        StandInModel(key="tiny", behaviours=(behaviour,)),
        StandInModel(key="users", size_bytes=21 * 10**9),
    ]
    loaded = [UserInstance(key="users", identifier="users")]
    with LmStudioServer(models, loaded=loaded) as server:
        in_lm_studio(project, server, "tiny").assert_outcomes(errors=1)
    assert verdicts(project) == [("tiny", Verdict.HOST_TROUBLE)]


@pytest.mark.parametrize(
    "text",
    [
        "OSError: [WinError 1114] Eine DLL-Initialisierungsroutine ist fehlgeschlagen.",
        "error loading model: llama_model_loader: failed to load model from"
        " C:\\Users\\\ufffd\ufffd\\x.gguf",
        "MLX vision models do not currently support KV cache quantization",
    ],
)
def test_what_is_not_in_the_file_never_makes_it_corrupted_or_unsupported(
    project: Project, text: str
) -> None:
    bad = StandInModel(key="bad", behaviours=(FailsToLoad(text=text),))
    with LmStudioServer([bad, StandInModel(key="healthy")]) as server:
        result = in_lm_studio(project, server, "bad", "healthy")
    assert result.parseoutcomes().get("xfailed", 0) == 0
    assert dict(verdicts(project))["healthy"] is Verdict.OK
    assert dict(verdicts(project)).get("bad") in (Verdict.HOST_TROUBLE, Verdict.ENGINE_ERROR)


def test_a_proxys_page_once_costs_one_more_load(project: Project) -> None:
    error = ServerError(title="An invalid response was received from the upstream server")
    with LmStudioServer(
        [StandInModel(key="tiny")], faults=[Fault(where="load", kind="error", error=error)]
    ) as server:
        in_lm_studio(project, server, "tiny", contexts="[512, 1024]").assert_outcomes(passed=2)
    assert verdicts(project) == [("tiny", Verdict.OK)] * 2
