"""Who is let into an LM Studio server, and what else may answer at its address."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.lmstudio.access import VARIABLES, api_token
from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine
from tests.standin.file_server import file_server

GOOD = "ABCDEFGH:abcdefghij0123456789"
WRONG = "sk-lm-WRONGKEY:abcdefghij0123456789"


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_token_opens_the_server(
    studio: Any, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"sk-lm-{GOOD}")
    studio(api_tokens=(GOOD,)).load().unload()


def test_the_name_of_lm_studios_own_docs_counts_first(
    studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LM_API_TOKEN", f"sk-lm-{GOOD}")
    monkeypatch.setenv("LMSTUDIO_API_TOKEN", WRONG)
    studio(api_tokens=(GOOD,)).load().unload()


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "wants an API token: set LM_API_TOKEN"),
        (WRONG, "refused the API token in LM_API_TOKEN"),
        ("sk-lm-oops", "the value of LM_API_TOKEN is not an API token of LM Studio"),
        ("s\u0456-lm-ABCDEFGH:abcdefghij0123456789", "the value of LM_API_TOKEN is not"),
    ],
    ids=["missing", "refused", "malformed", "lookalike"],
)
def test_missing_refused_and_malformed_tokens_are_distinguished(
    studio: Any, monkeypatch: pytest.MonkeyPatch, token: str, words: str
) -> None:
    monkeypatch.setenv("LM_API_TOKEN", token)
    own = studio(api_tokens=(GOOD,))
    with pytest.raises(Failure, match=words) as failed:
        own.engine.models()
    assert (failed.value.verdict, failed.value.final) == (Verdict.UNREACHABLE, True)
    assert "Start the server" not in str(failed.value)


@pytest.mark.parametrize("token", [WRONG, "sk-lm-oops"])
def test_a_token_is_never_printed(
    studio: Any, monkeypatch: pytest.MonkeyPatch, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("LM_API_TOKEN", token)
    own = studio(api_tokens=(GOOD,))
    with pytest.raises(Failure) as failed:
        own.engine.models()
    secret = token.removeprefix("sk-lm-").rpartition(":")[2]
    assert secret not in f"{failed.value}{failed.value.__cause__!r}"
    ours = [record for record in caplog.records if not record.name.startswith("tests.")]
    assert ours
    assert not any(secret in record.getMessage() for record in ours)


def test_a_token_does_not_show_in_its_repr() -> None:
    token = api_token({"LM_API_TOKEN": WRONG})
    assert repr(token) == "ApiToken(LM_API_TOKEN)"


def test_something_else_that_answers_is_not_lm_studio() -> None:
    with file_server(b"an ordinary page") as other:
        host = other.base.removeprefix("http://")
        engine = LmStudioEngine(host)
        with pytest.raises(Failure, match=f"what answers at {host} is not LM Studio") as failed:
            engine.models()
        engine.close()
    assert (failed.value.verdict, failed.value.final) == (Verdict.UNREACHABLE, True)


@contextmanager
def proxy(status: int) -> Iterator[str]:
    """A proxy that answers every request with `status` and a page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html><h1>A page of the proxy</h1></html>")

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_proxy_before_a_server_that_is_down_may_be_asked_again(status: int) -> None:
    with proxy(status) as host:
        engine = LmStudioEngine(host)
        with pytest.raises(Failure, match=f"is a proxy: HTTP status {status}") as failed:
            engine.models()
        engine.close()
    assert (failed.value.verdict, failed.value.final) == (Verdict.UNREACHABLE, False)


@pytest.mark.parametrize("status", [401, 403, 407])
def test_a_proxy_that_refuses_access_is_asked_once(status: int) -> None:
    with proxy(status) as host:
        engine = LmStudioEngine(host)
        with pytest.raises(Failure, match=f"refuses access: HTTP status {status}") as failed:
            engine.models()
        engine.close()
    assert (failed.value.verdict, failed.value.final) == (Verdict.UNREACHABLE, True)


def test_a_closed_port_is_just_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        engine = LmStudioEngine(f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(Failure, match="not reachable") as failed:
            engine.models()
        engine.close()
    assert (failed.value.verdict, failed.value.final) == (Verdict.UNREACHABLE, False)
