"""The HTTP server of a stand-in for OpenAI-compatible servers."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from itertools import cycle, islice
from threading import Event
from time import sleep
from typing import Any

from msgspec.structs import replace

from tests.standin.http.faults import HttpFault, HttpFaults, hang, lose_connection
from tests.standin.http.server import HttpStandIn, StandInHttpServer
from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.models.asked import Asked, Called
from tests.standin.lmstudio.models.minds import Message, Prediction, Request, StandInMind
from tests.standin.lmstudio.models.model import StandInModel
from tests.standin.openai.embeddings import embeddings
from tests.standin.openai.quirks import Dialect, Faults

VERSION = "0.11.2"
OTHER = "EngineCore encountered an issue"
ENGINE_DEAD = "EngineCore process died unexpectedly"


class OpenAiServer(HttpStandIn):
    """One model with one context, at `url`; `host` is for `--lmstrix-host`."""

    def __init__(
        self,
        model: StandInModel,
        context_length: int,
        dialect: Dialect = Dialect.VLLM,
        faults: Faults | None = None,
        *,
        api_key: str | None = None,
        http_faults: Iterable[HttpFault] = (),
    ) -> None:
        self.http_faults = HttpFaults(http_faults)
        self.model = model
        self.dialect = dialect
        self.faults = faults or Faults()
        self.api_key = api_key
        self.mind = StandInMind(model, context_length)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        """Path and body of each request."""
        self.keys: list[str | None] = []
        """The header `Authorization` of each request."""
        self.predictions = 0
        self.closing = Event()
        self._http = _Http(self)
        self.address = f"127.0.0.1:{self._http.server_address[1]}"
        self.url = f"http://{self.address}"
        self.host = f"openai+{self.url}"

    @property
    def asked(self) -> list[str]:
        """The paths of the requests for an answer."""
        return [path for path, _ in self.requests if path.endswith("completions")]

    def listing(self) -> dict[str, Any]:
        """Return the answer of `/v1/models`."""
        context_length = self.faults.context or self.mind.context_length
        entry: dict[str, Any] = {"id": self.model.key, "object": "model", "created": 1}
        if self.dialect in (Dialect.VLLM, Dialect.SGLANG):
            entry |= {"root": f"publisher/{self.model.key}", "max_model_len": context_length}
            entry |= {"owned_by": str(self.dialect), "parent": None}
        if self.dialect is Dialect.LLAMACPP:
            trained, size = self.model.max_context_length, self.model.size_bytes
            meta = {"n_ctx": context_length, "n_ctx_train": trained, "size": size}
            entry |= {"owned_by": "llamacpp", "meta": meta}
        return {"object": "list", "data": [entry]}


class _Http(StandInHttpServer):
    def __init__(self, server: OpenAiServer) -> None:
        self.openai = server
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # else each answer waits 40 ms for a delayed ACK
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle({})

    def do_POST(self) -> None:
        self._handle(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0)))))

    def _handle(self, body: dict[str, Any]) -> None:
        openai = self.server.openai
        key = self.headers.get("Authorization")
        openai.requests.append((self.path, body))
        openai.keys.append(key)
        faults, dialect = openai.faults, openai.dialect
        if faults.redirect is not None:
            self._answer(307, {}, {"Location": faults.redirect + self.path})
        elif openai.api_key is not None and key != f"Bearer {openai.api_key}":
            echo = f": {key}" if faults.echoes_key else ""
            self._refuse(401, f"Incorrect API key provided{echo}", "invalid_api_key")
        elif self.path == "/v1/models" and not faults.no_listing:
            self._answer(200, openai.listing())
        elif self.path == "/version" and dialect is Dialect.VLLM:
            self._answer(200, {"version": VERSION})
        elif self.path == "/props" and dialect is Dialect.LLAMACPP:
            settings = {"n_ctx": openai.mind.context_length}
            names = ("supports_tool_calls", "supports_parallel_tool_calls")
            template = dict.fromkeys(names, openai.model.trained_for_tool_use)
            build = {"build_info": VERSION, "default_generation_settings": settings,
                     "modalities": {"vision": openai.model.vision, "audio": False},
                     "chat_template_caps": template, "chat_template": ""}  # fmt: skip
            self._answer(200, build)
        elif self.path == "/tokenize" and dialect is not Dialect.PLAIN and not faults.no_tokenize:
            self._tokenize(body)
        elif self.path == "/v1/chat/completions" or (
            self.path == "/v1/completions" and not faults.no_completions
        ):
            self._predict(body)
        elif self.path == "/v1/embeddings" and openai.model.type == "embedding":
            self._answer(*embeddings(openai.model, openai.mind.context_length, body, faults))
        else:
            self._answer(404, {"detail": "Not Found"})

    def _tokenize(self, body: dict[str, Any]) -> None:
        openai = self.server.openai
        if openai.dialect is Dialect.LLAMACPP:
            self._answer(200, {"tokens": list(openai.mind.tokenize(body.get("content", "")))})
            return
        tokens = list(openai.mind.tokenize(body["prompt"]))
        if body.get("add_special_tokens", True):
            tokens = [1] * openai.model.bos_tokens + tokens
        context_length = openai.mind.context_length
        self._answer(200, {"tokens": tokens, "count": len(tokens), "max_model_len": context_length})

    def _predict(self, body: dict[str, Any]) -> None:
        openai = self.server.openai
        faults = openai.faults
        openai.predictions += 1
        if faults.refuses_stream_options and "stream_options" in body:
            self._refuse(400, "Unrecognized request argument supplied: stream_options")
            return
        if faults.refuses_ignore_eos and "ignore_eos" in body:
            self._refuse(400, "Unrecognized request argument supplied: ignore_eos")
            return
        if faults.wants_completion_tokens and "max_tokens" in body:
            words = "'max_tokens' is not supported with this model. Use 'max_completion_tokens'"
            self._refuse(400, f"Unsupported parameter: {words} instead.")
            return
        if faults.refuses_greedy and not body.get("temperature", 1.0):
            self._refuse(422, "Input validation error: `temperature` must be strictly positive")
            return
        if openai.predictions <= faults.busy:
            wait = {} if faults.retry_after is None else {"Retry-After": faults.retry_after}
            self._refuse(faults.busy_status, "too many requests", headers=wait)
            return
        if body["model"] != openai.model.key:
            self._refuse(404, f"The model `{body['model']}` does not exist.", "NotFoundError")
            return
        try:
            messages = _messages(body)
        except LookupError as error:
            self._refuse(400, f"{error.args[0]}", "BadRequestError")
            return
        chat = bool(messages)
        request = Request(
            messages=tuple(messages) or (Message(role="user", text=body["prompt"]),),
            chat=chat,
            max_tokens=body.get("max_tokens", body.get("max_completion_tokens")),
            temperature=body.get("temperature", 1.0),
            overflow_policy="stopAtLimit",
            stop_strings=tuple(body.get("stop", ())),
            attempt=openai.predictions,
            asked=_asked(body),
        )
        refused = next((name for name in faults.refuses if name in body), None)
        if refused is not None or (faults.refuses_images and request.asked.images):
            what = refused or "image_url"
            self._refuse(400, f"{what} is not supported by this server", "BadRequestError")
            return
        try:
            if self._suffer():
                return
            prediction = openai.mind.predict(request)
        except Refused as refused:
            self._refuse(400, f"{refused.error.title} {refused.error.cause or ''}".strip())
            return
        except ConnectionError:
            return
        if body.get("ignore_eos") and openai.dialect is not Dialect.PLAIN:
            pieces = tuple(islice(cycle(prediction.pieces), body["max_tokens"]))
            prediction = replace(prediction, pieces=pieces, predicted_tokens=len(pieces))
        if faults.paced:
            sleep(prediction.ttft_seconds)
        try:
            self._stream(list(_events(prediction, openai, body, chat=chat)))
        except ConnectionError:
            self.close_connection = True

    def _suffer(self) -> bool:
        """Do what a fault before the answer demands; return whether the request is answered."""
        openai = self.server.openai
        kind = openai.http_faults.strike("predict", openai.model.key)
        if kind in ("error", "crash"):
            self._refuse(500, ENGINE_DEAD if kind == "crash" else OTHER, "InternalServerError")
        elif kind == "hang":
            hang(self, openai.closing)
        elif kind == "lost":
            lose_connection(self)
        elif kind is not None:
            self._answer(200, {} if kind == "ends" else "}")
        return kind is not None

    def _break(self) -> bool:
        """Return whether a fault after the first piece has ended the answer."""
        openai = self.server.openai
        kind = openai.http_faults.strike("fragment", openai.model.key)
        if kind in ("error", "crash"):
            message = ENGINE_DEAD if kind == "crash" else OTHER
            self._chunk(json.dumps({"error": {"message": message, "type": "internal_error"}}))
        elif kind == "hang":
            hang(self, openai.closing)
        elif kind == "lost":
            lose_connection(self)
        elif kind == "garbage":
            self._chunk("}")
        return kind is not None

    def _stream(self, events: list[dict[str, Any]]) -> None:
        openai = self.server.openai
        faults = openai.faults
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, event in enumerate(events):
            if number == 1 and openai.predictions <= faults.cut:
                lose_connection(self)
            if number == 1 and faults.ends_early:
                break
            if number == 1 and faults.freezes:
                openai.closing.wait()
            if number == 1 and faults.error_in_stream:
                error = {"message": OTHER, "type": "internal_error"}
                self._chunk(json.dumps({"error": error}))
                break
            if number == 1 and self._break():
                break
            if faults.paced:
                sleep(1 / openai.model.decode_tokens_per_second)
            self._chunk(json.dumps(event))
        else:
            self._chunk("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: str) -> None:
        line = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def _refuse(
        self, status: int, text: str, code: str | None = None, *,
        headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._answer(status, {"error": {"message": text, "code": code}}, headers)

    def _answer(
        self, status: int, answer: dict[str, Any] | str, headers: dict[str, str] | None = None
    ) -> None:
        """Send an answer; a text as it is."""
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _messages(body: dict[str, Any]) -> list[Message]:
    """Return the messages of a chat; raise `LookupError` for a result without its call."""
    messages: list[Message] = []
    called: dict[str, Called] = {}
    for message in body.get("messages", ()):
        call = None
        if message["role"] == "tool":
            if message["tool_call_id"] not in called:
                raise LookupError("messages with role 'tool' must follow one with 'tool_calls'")
            call = called.pop(message["tool_call_id"])
        elif called:
            raise LookupError(f"tool_call_ids did not have response messages: {list(called)}")
        for each in message.get("tool_calls", ()):
            assert each["type"] == "function", each
            function = each["function"]
            arguments = json.dumps(json.loads(function["arguments"]))
            called[each["id"]] = Called(function["name"], arguments)
        messages.append(Message(role=message["role"], text=_text(message), called=call))
    return messages


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    return "".join(part["text"] for part in parts if part["type"] == "text")


def _asked(body: dict[str, Any]) -> Asked:
    parts = [p for m in body.get("messages", ()) if isinstance(m["content"], list)
             for p in m["content"]]  # fmt: skip
    images = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert all(url.startswith("data:image/") for url in images), images
    form = body.get("response_format") or {}
    return Asked(
        seed=body.get("seed"),
        schema=form.get("json_schema", {}).get("schema"),
        tools=tuple(body.get("tools", ())),
        images=len(images),
        pictures=tuple(b64decode(url.partition(",")[2], validate=True) for url in images),
    )


def _halves(text: str) -> tuple[dict[str, str], dict[str, str]]:
    middle = len(text) // 2
    return {"arguments": text[:middle]}, {"arguments": text[middle:]}


def _events(
    prediction: Prediction, openai: OpenAiServer, body: dict[str, Any], *, chat: bool
) -> Iterator[dict[str, Any]]:
    pieces = list(prediction.pieces)
    if openai.faults.echoes_key:
        pieces.insert(0, (f"({openai.api_key}) ", "none"))
    for text, kind in pieces:
        if kind in ("none", "reasoning"):
            field = "reasoning_content" if kind == "reasoning" else "content"
            said = {"delta": {field: text}} if chat else {"text": text}
            yield {"choices": [{"index": 0, **said, "finish_reason": None}]}
    for index, call in enumerate(prediction.calls):
        for part in ({"name": call.name, "arguments": ""}, *_halves(call.arguments)):
            delta = {"tool_calls": [{"index": index, "id": f"call_{index}", "function": part}]}
            yield {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    ended = prediction.stop_reason in ("maxPredictedTokensReached", "contextLengthReached")
    last: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
    reason = "length" if ended else "tool_calls" if prediction.calls else "stop"
    final = {"choices": [{"index": 0, **last, "finish_reason": reason}]}
    yield final | ({"timings": _timings(prediction)} if openai.dialect is Dialect.LLAMACPP else {})
    if body.get("stream_options", {}).get("include_usage") and not openai.faults.no_usage:
        usage = {
            "prompt_tokens": prediction.prompt_tokens,
            "completion_tokens": prediction.predicted_tokens,
            "prompt_tokens_details": None,
        }
        yield {"choices": [], "usage": usage}


def _timings(prediction: Prediction) -> dict[str, Any]:
    fresh = (prediction.prompt_tokens or 0) - prediction.cached_tokens
    return {
        "cache_n": prediction.cached_tokens,
        "prompt_n": fresh,
        "prompt_per_second": fresh / prediction.ttft_seconds,
        "predicted_n": prediction.predicted_tokens,
        "predicted_per_second": prediction.tokens_per_second,
    }
