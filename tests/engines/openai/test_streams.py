"""Streamed answers as servers were seen to send them."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import repeat

import msgspec
import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, Model, Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.openai.engine import OpenAiEngine
from tests.standin.openai.canned import Canned, CannedServer, Pieces

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
LISTING = Canned(body=b'{"data":[{"id":"tiny","max_model_len":2048}]}')
HELLO = (Message(role="user", content="Say hello"),)
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}\n\n'


class Ignored:
    """A `Progress` that keeps the prefill."""

    def __init__(self) -> None:
        self.prefills: list[tuple[int, int]] = []

    def __call__(self, fraction: float, /) -> None:
        pass

    def prefill(self, done: int, total: int) -> None:
        self.prefills.append((done, total))


Ask = Callable[..., Reply]


class Asked:
    """Asks a server whose answer to completions and chats is canned."""

    def __init__(self, cleanup: ExitStack) -> None:
        self._cleanup = cleanup
        self.progress = Ignored()
        self.pauses: list[float] = []

    def __call__(
        self,
        body: bytes | Callable[[], Pieces],
        *,
        chat: bool = False,
        reply_timeout: float = 30.0,
        status: int = 200,
        headers: dict[str, str] | None = None,
        max_tokens: int = 8,
    ) -> Reply:
        answer = Canned(body=body, status=status, headers=headers or {})
        answers = {"/v1/models": LISTING, COMPLETIONS: answer, CHAT: answer}
        self.server = self._cleanup.enter_context(CannedServer(answers))
        engine = OpenAiEngine(
            self.server.host, reply_timeout=reply_timeout, pause=self.pauses.append
        )
        self._cleanup.callback(engine.close)
        instance = engine.load(Model(id="tiny", engine="openai"), 2048, self.progress)
        if chat:
            return instance.chat(HELLO, max_tokens=max_tokens)
        return instance.complete("2 + 3 =", max_tokens=max_tokens)


@pytest.fixture
def asked() -> Iterator[Asked]:
    with ExitStack() as cleanup:
        yield Asked(cleanup)


def events(*datas: str, end: str = "data: [DONE]\n\n") -> bytes:
    return "".join(f"data: {data}\n\n" for data in datas).encode() + end.encode()


SAID = '{"choices":[{"index":0,"text":" 5","finish_reason":null}],"usage":null}'
STOP = '{"choices":[{"index":0,"text":"","finish_reason":"stop"}],"usage":null}'
USAGE = '{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}'
ZEROS = '"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(events(SAID, STOP, USAGE), id="as-openai"),
        pytest.param(events(SAID, STOP, USAGE, end=""), id="no-done"),
        pytest.param(events(SAID, STOP, USAGE).replace(b"\n", b"\r\n"), id="crlf"),
        pytest.param(b": ping\n\n:\n\n" + events(SAID, STOP, USAGE), id="comments"),
        pytest.param(b"id: 1\nevent: x\nretry: 9\n" + events(SAID, STOP, USAGE), id="fields"),
        # SGLang #4550, vLLM #27572: no reason, or "" before it.
        pytest.param(events(SAID, USAGE), id="no-reason"),
        pytest.param(events(SAID.replace('n":null', 'n":""'), STOP, USAGE), id="empty-reason"),
        # TabbyAPI, LocalAI: a usage of zeros in every event but one.
        pytest.param(
            events(SAID.replace('"usage":null', ZEROS), USAGE, STOP.replace('"usage":null', ZEROS)),
            id="usage-of-zeros",
        ),
    ],
)
def test_a_completion_is_read_whatever_surrounds_it(asked: Asked, body: bytes) -> None:
    reply = asked(body)
    assert (reply.text, reply.stop_reason) == (" 5", "stop")
    assert (reply.prompt_tokens, reply.completion_tokens) == (7, 1)


@pytest.mark.parametrize("pretty", [False, True])
def test_a_server_that_does_not_stream_sends_all_at_once(asked: Asked, pretty: bool) -> None:
    calls = ",".join(f'{{"id":"c{n}","function":{{"name":"f{n}","arguments":"{{}}"}}}}'
                     for n in range(2))  # fmt: skip
    body = (
        '{"choices":[{"index":0,"message":{"role":"assistant","content":"Hello",'
        f'"tool_calls":[{calls}]}},"finish_reason":"stop"}}],'
        '"usage":{"prompt_tokens":9,"completion_tokens":2}}'
    )
    reply = asked((body.replace(",", ",\n  ") if pretty else body).encode(), chat=True)
    assert (reply.text, reply.prompt_tokens) == ("Hello", 9)
    assert [call.name for call in reply.tool_calls] == ["f0", "f1"]


def test_a_compressed_stream_is_read(asked: Asked) -> None:
    body = gzip.compress(events(SAID, STOP))
    assert asked(body, headers={"Content-Encoding": "gzip"}).text == " 5"


def test_content_may_be_a_list_of_parts(asked: Asked) -> None:
    body = events(
        '{"choices":[{"delta":{"content":[{"type":"text","text":"Hel"},{"type":"x"}]}}]}',
        '{"choices":[{"delta":{"content":null,"reasoning":null,"tool_calls":[]}}]}',
        '{"choices":[{"delta":{"content":"lo"},"finish_reason":"stop"}]}',
    )
    assert asked(body, chat=True).text == "Hello"


def test_a_usage_of_zeros_is_not_told(asked: Asked) -> None:
    reply = asked(events(STOP.replace('"text":""', '"text":" 5"').replace('"usage":null', ZEROS)))
    assert (reply.prompt_tokens, reply.completion_tokens) == (None, None)


def test_without_a_reason_the_budget_tells_why_a_reply_ended(asked: Asked) -> None:
    assert asked(events(SAID, USAGE), max_tokens=1).stop_reason == "length"


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_reply_that_the_server_aborts_is_no_answer(asked: Asked, reason: str) -> None:
    # vLLM #57082: status 200, this reason, and [DONE].
    with pytest.raises(Failure, match=f"finish_reason '{reason}'") as failed:
        asked(events(SAID, STOP.replace("stop", reason)))
    assert failed.value.verdict is Verdict.ENGINE_ERROR


@pytest.mark.parametrize(
    "body", [events(), events(end=""), ROLE, ROLE + events(), events(SAID, end="")]
)
def test_an_end_without_a_reason_or_a_text_is_no_answer(asked: Asked, body: bytes) -> None:
    with pytest.raises(Failure, match="broke off") as failed:
        asked(body, chat=True)
    assert failed.value.verdict is Verdict.ENGINE_ERROR


@pytest.mark.parametrize("counted", [0, 1])
def test_a_reply_without_a_token_had_no_room(asked: Asked, counted: int) -> None:
    # LM Studio, bug tracker 2339: so it answers a prompt that is too long.
    usage = f'{{"choices":[],"usage":{{"prompt_tokens":2048,"completion_tokens":{counted}}}}}'
    body = events(STOP.replace("stop", "length"), usage)
    if counted:  # such as an end of text
        assert asked(body).text == ""
    else:
        with pytest.raises(Failure, match="no room for the prompt") as failed:
            asked(body)
        assert failed.value.verdict is Verdict.CONTEXT_TOO_LARGE


def pings(first: bytes = b"", ping: bytes = b":\n\n") -> Callable[[], Iterable[bytes | float]]:
    def pieces() -> Iterator[bytes | float]:
        yield first
        for _ in repeat(None):
            yield ping
            yield 0.05

    return pieces


@pytest.mark.parametrize(
    "body",
    [
        # llama-server pings every 30 s by default, sse-starlette every 15.
        pytest.param(pings(), id="before-the-first"),
        pytest.param(pings(events(SAID, end="")), id="in-mid-answer"),
        pytest.param(pings(ping=b'data: {"choices":[]}\n\n'), id="empty-events"),
        pytest.param(pings(ping=ROLE), id="roles"),
        pytest.param(pings(ping=b": keepalive 512/1024\n\n"), id="a-prefill-that-stands-still"),
    ],
)
def test_a_server_that_only_pings_times_out(
    asked: Asked, body: Callable[[], Iterable[bytes | float]]
) -> None:
    with pytest.raises(Failure, match=r"no sign of the model for 0\.3 s") as failed:
        asked(body, reply_timeout=0.3)
    assert failed.value.verdict is Verdict.TIMEOUT


def test_a_prefill_after_the_role_has_the_time_of_a_prefill(asked: Asked) -> None:
    # LocalAI sends the role, and computes then.
    def pieces() -> Iterator[bytes | float]:
        yield ROLE
        yield 0.5
        yield events('{"choices":[{"delta":{"content":"Hello"},"finish_reason":"stop"}]}')

    answer = Canned(body=pieces)
    with CannedServer({"/v1/models": LISTING, CHAT: answer}) as server:
        engine = OpenAiEngine(server.host, reply_timeout=0.2)
        instance = engine.load(Model(id="tiny", engine="openai"), 2048, Ignored())
        long = Message(role="user", content="word " * 80)  # 4 s of prefill are allowed for it
        assert instance.chat([long], max_tokens=4).text == "Hello"
        engine.close()


def test_the_comments_of_mlx_are_the_progress_of_a_prefill(asked: Asked) -> None:
    body = b": keepalive 512/1024\n\n: keepalive 1024/1024\n\n" + events(SAID, STOP)
    assert asked(body).text == " 5"
    assert asked.progress.prefills == [(512, 1024), (1024, 1024)]


TOO_LONG = "This model's maximum context length is 2048 tokens"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        ({"error": {"message": TOO_LONG, "code": 400}}, Verdict.CONTEXT_TOO_LARGE),
        ({"error": TOO_LONG}, Verdict.CONTEXT_TOO_LARGE),
        ({"error": [TOO_LONG]}, Verdict.CONTEXT_TOO_LARGE),
        ({"error": {"error": {"message": TOO_LONG}}}, Verdict.CONTEXT_TOO_LARGE),
        ({"error": True, "message": TOO_LONG}, Verdict.CONTEXT_TOO_LARGE),
        ({"object": "error", "message": TOO_LONG, "code": 400}, Verdict.CONTEXT_TOO_LARGE),
        ({"detail": TOO_LONG}, Verdict.CONTEXT_TOO_LARGE),
        ({"detail": [{"loc": ["body"], "msg": TOO_LONG}]}, Verdict.CONTEXT_TOO_LARGE),
        ({"detail": {"error": {"message": TOO_LONG}}}, Verdict.CONTEXT_TOO_LARGE),
        ({"error": {"type": "overloaded"}}, Verdict.ENGINE_ERROR),
    ],
)
def test_errors_are_read_in_every_shape(
    asked: Asked, error: dict[str, object], verdict: Verdict
) -> None:
    data = msgspec.json.encode(error)
    with pytest.raises(Failure) as refused:
        asked(data, status=400)
    assert refused.value.verdict is verdict
    if verdict is Verdict.CONTEXT_TOO_LARGE:
        assert refused.value.text == TOO_LONG
    if "detail" in error:  # FastAPI's, which is never within an answer
        return
    for body in (b"data: " + data + b"\n\n", b"event: error\ndata: " + data + b"\n\n", data):
        with pytest.raises(Failure) as failed:
            asked(events(SAID, end="") + body if body != data else body)
        assert (failed.value.verdict, failed.value.text) == (verdict, refused.value.text)


def test_a_budget_that_is_too_large_is_no_other_name(asked: Asked) -> None:
    words = (
        "'max_tokens' or 'max_completion_tokens' is too large: 8. This model's maximum context"
        " length is 2048 tokens and your request has 2045 input tokens"
    )
    with pytest.raises(Failure) as failed:
        asked(msgspec.json.encode({"error": {"message": words}}), status=400)
    assert failed.value.verdict is Verdict.CONTEXT_TOO_LARGE
    assert asked.server.paths.count(COMPLETIONS) == 1


def test_of_a_page_of_html_the_title_is_told(asked: Asked) -> None:
    page = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>models</body></html>"
    with pytest.raises(Failure, match=r"\(502\): 502 Bad Gateway\n") as failed:
        asked(page, status=502)
    assert failed.value.verdict is Verdict.HOST_TROUBLE


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (b"<html><head><title>413 Request Entity Too Large</title>", Verdict.HOST_TROUBLE),
        # Text Generation Inference and Text Embeddings Inference.
        (b'{"error":"`inputs` must have less than 9 tokens. Given: 9"}', Verdict.CONTEXT_TOO_LARGE),
        (b'{"error":"`inputs` tokens + `max_new_tokens` must be <= 9"}', Verdict.CONTEXT_TOO_LARGE),
        (b'{"error":"the prompt exceeds the context of 512 tokens"}', Verdict.CONTEXT_TOO_LARGE),
    ],
)
def test_a_proxy_that_takes_no_long_request_is_not_the_context(
    asked: Asked, body: bytes, verdict: Verdict
) -> None:
    with pytest.raises(Failure) as failed:
        asked(body, status=413)
    assert failed.value.verdict is verdict


def test_a_page_of_html_instead_of_a_stream_is_an_error(asked: Asked) -> None:
    with pytest.raises(Failure, match="does not answer as OpenAI's interface does"):
        asked(b"<!DOCTYPE html>\n<html>\n<title>Sign in</title>\n</html>")


def test_too_little_memory_is_not_waited_for(asked: Asked) -> None:
    # mlx_lm's server has the status of a busy one for it.
    words = b"[METAL] Command buffer execution failed: Insufficient Memory (00000008)"
    with pytest.raises(Failure) as failed:
        asked(b'{"error": "' + words + b'"}', status=503)
    assert failed.value.verdict is Verdict.OUT_OF_MEMORY
    assert asked.pauses == []
