"""Reports from the field, replayed in whole runs: who is to blame, and what a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project
from tests.standin.lmstudio import Fault, Guardrail, LmStudioServer, ServerError, StandInModel
from tests.standin.lmstudio.models.behaviours import FailsInChat, FailsToLoad
from tests.standin.lmstudio.server import UserInstance

LINK = "LM Link connection entered error state: peer_keepalive_timeout"
COMPANION = (
    "failed to load draft model, '/models/big-mtp.gguf': error loading model: invalid vector"
    " subscript"
)
HEALTHY = StandInModel(key="healthy")


def manifest(project: Project, *entries: str) -> None:
    project.pytester.makefile(".yaml", models=f"models: [{', '.join(entries)}]\n")


def run(project: Project, server: LmStudioServer, *args: str) -> pytest.RunResult:
    return project.run("--lmstrix", "--all", f"--lmstrix-host={server.host}", *args)


def verdicts(project: Project) -> dict[str, Verdict]:
    return {result.model: result.verdict for result in project.results}


def test_a_lost_link_to_another_device_is_unreachable_and_leaves_nothing_open(
    project: Project,
) -> None:
    manifest(project, "{id: linked, contexts: [512]}", "{id: healthy, contexts: [512]}")
    linked = StandInModel(key="linked", device="attic", behaviours=(FailsToLoad(text=LINK),))
    with LmStudioServer([linked, HEALTHY], version="0.4.24") as server:
        result = run(project, server)
    result.assert_outcomes(passed=1, errors=1)
    assert verdicts(project) == {"healthy": Verdict.OK}
    result.stdout.fnmatch_lines(["Check in LM Studio that the linked device is on*"])
    assert "may still have" not in result.stdout.str() + result.stderr.str()


def test_one_error_500_in_a_night_costs_one_more_load_and_no_search(project: Project) -> None:
    manifest(project, "{id: healthy, contexts: [30000, 40000]}")
    error = ServerError(title="HTTP 500: Internal Server Error")
    fault = Fault(where="predict", kind="error", error=error)
    with LmStudioServer([HEALTHY], faults=[fault]) as server:
        result = run(project, server)
        assert [call.context_length for call in server.loads()] == [30_000, 30_000, 40_000]
    result.assert_outcomes(passed=2)
    assert [(r.verdict, r.retried) for r in project.results] == [
        (Verdict.OK, True),
        (Verdict.OK, False),
    ]
    assert "works at" not in result.stdout.str()


def test_a_broken_companion_is_named_and_fails_its_model_without_an_xfail(
    project: Project,
) -> None:
    manifest(project, "{id: big, contexts: [8192]}", "{id: healthy, contexts: [8192]}")
    big = StandInModel(key="big", behaviours=(FailsToLoad(text=COMPANION),))
    with LmStudioServer([big, HEALTHY]) as server:
        result = run(project, server)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*failed to load draft model, '/models/big-mtp.gguf'*"])
    result.stdout.fnmatch_lines(["fails at any size"])
    result.stdout.fnmatch_lines(["Mend, update or take away the companion*"])


RAISED = (
    'Error rendering prompt with jinja template: "Unknown test: sequence".',
    "Conversation roles must alternate user/assistant/user/assistant/...",
)


@pytest.mark.parametrize("text", RAISED)
@pytest.mark.parametrize("check", ["fast", "full", "deep"])
def test_a_template_that_raises_fails_a_chat_at_once_and_no_completion(
    project: Project, text: str, check: str
) -> None:
    models = [StandInModel(key=key, behaviours=(FailsInChat(text=text),)) for key in ("a", "b")]
    manifest(project, "{id: a, contexts: [4096], prompts: chat}", "{id: b, contexts: [4096]}")
    with LmStudioServer(models) as server:
        result = run(project, server, "-m", check)
        assert [call.model_key for call in server.loads()] == ["a", "b"]
    result.assert_outcomes(passed=1, failed=1)
    assert verdicts(project) == {"a": Verdict.TEMPLATE_ERROR, "b": Verdict.OK}
    result.stdout.fnmatch_lines(["Set `prompts: completion`, or mend the chat template."])
    assert "works at" not in result.stdout.str()


def test_memory_that_a_user_holds_leaves_what_was_known_of_a_model(project: Project) -> None:
    manifest(project, "{id: tiny, contexts: [8192]}")
    with LmStudioServer([StandInModel(key="tiny")]) as server:
        run(project, server).assert_outcomes(passed=1)
    refused = StandInModel(key="tiny", behaviours=(Guardrail(above=512),))
    users = StandInModel(key="users", size_bytes=21 * 10**9)
    loaded = [UserInstance(key="users", identifier="users")]
    with LmStudioServer([refused, users], loaded=loaded) as server:
        result = run(project, server, "--lmstrix-fail-on-regression")
        assert server.loaded() == ("users",)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*still in memory of *: users (2* GB); unload them there*"])
    result.stdout.no_fnmatch_line("*newly broken*")
    assert project.results[-1].verdict is Verdict.HOST_TROUBLE


def test_an_engine_that_died_after_its_answer_has_answered(project: Project) -> None:
    manifest(project, "{id: tiny, contexts: [4096]}")
    died = StandInModel(key="tiny", stats={"stopReason": "engineDied"})
    with LmStudioServer([died], version="0.4.24") as server:
        run(project, server).assert_outcomes(passed=1)


def test_a_model_of_an_unknown_format_and_context_is_tested(project: Project) -> None:
    manifest(project, "{id: tiny, contexts: [4096]}")
    strange = StandInModel(key="tiny", format="pte", listing={"maxContextLength": None})
    with LmStudioServer([strange], version="0.4.24") as server:
        run(project, server).assert_outcomes(passed=1)


def test_prompt_tokens_that_are_reported_as_none_are_no_cut_prompt(project: Project) -> None:
    manifest(project, "{id: tiny, contexts: [2048]}")
    with LmStudioServer([StandInModel(key="tiny", stats={"promptTokensCount": 0})]) as server:
        run(project, server, "-m", "deep").assert_outcomes(passed=1)


@contextmanager
def web_server() -> Iterator[str]:
    """Another program at a port, which answers everything with a page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>It works!</html>")

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_another_program_at_the_port_is_named_as_not_lm_studio(project: Project) -> None:
    manifest(project, "{id: a, contexts: [512]}", "{id: b, contexts: [512]}")
    with web_server() as host:
        result = project.run("--lmstrix", "--all", f"--lmstrix-host={host}")
    result.assert_outcomes(errors=1, skipped=1)
    shown = result.stdout.str()
    assert f"what answers at {host} is not LM Studio" in shown
    assert "WebSocket" not in shown
    assert "Start the server" not in shown
