"""The HTTP server of a stand-in Ollama."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler
from threading import Event
from typing import Any

from tests.standin.http.faults import HttpFault, HttpFaults, Place, hang, lose_connection
from tests.standin.http.server import HttpStandIn, StandInHttpServer
from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.models.minds import Prediction, embed
from tests.standin.lmstudio.models.model import StandInModel
from tests.standin.ollama.machine import Machine
from tests.standin.ollama.quirks import (
    OTHER,
    RUNNER_GONE,
    RUNNER_GONE_IN_STREAM,
    OllamaError,
    Quirks,
)
from tests.standin.ollama.replies import last_fields, pieces, predict

_ABORTED = 499


class OllamaServer(HttpStandIn):
    """Runs inside `with`, at `address`; `host` is for `--lmstrix-host`."""

    def __init__(
        self,
        models: Iterable[StandInModel] = (),
        quirks: Quirks | None = None,
        faults: Iterable[HttpFault] = (),
    ) -> None:
        self.quirks = quirks or Quirks()
        self.faults = HttpFaults(faults)
        self.machine = Machine(models, self.quirks)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        """Path and body of each POST."""
        self.closing = Event()
        self._http = _Http(self)
        self.address = f"127.0.0.1:{self._http.server_address[1]}"
        self.host = f"ollama://{self.address}"

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for name in list(self.machine.residents):
            self.machine.remove(name, "closed")

    @property
    def loaded(self) -> dict[str, int]:
        """The models in memory, with the context that was asked for."""
        return {name: each.asked for name, each in self.machine.residents.items()}

    @property
    def events(self) -> list[str]:
        return self.machine.events

    def use(self, name: str, num_ctx: int | None = None, keep_alive: float | None = None) -> None:
        """Load or use a model as another client does."""
        self.machine.resident(name, num_ctx, keep_alive)

    def evict(self, name: str) -> None:
        """Take a model out of memory as another client's load does."""
        self.machine.remove(name, "evicted")


class _Http(StandInHttpServer):
    def __init__(self, server: OllamaServer) -> None:
        self.ollama = server
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # else each answer waits 40 ms for a delayed ACK
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        machine = self.server.ollama.machine
        match self.path:
            case "/api/version":
                self._answer(200, {"version": machine.quirks.version})
            case "/api/tags":
                self._answer(200, machine.tags())
            case "/api/ps":
                self._answer(200, machine.running())
            case _:
                self._answer(404, {"error": "404 page not found"})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length))
        ollama = self.server.ollama
        ollama.requests.append((self.path, body))
        try:
            if ollama.quirks.busy:
                text = "server busy, please try again.  maximum pending requests exceeded"
                raise OllamaError(503, text)
            match self.path:
                case "/api/show":
                    self._answer(200, ollama.machine.show(body["model"]))
                case "/api/generate":
                    self._generate(body, chat=False, field="prompt")
                case "/api/embed" if ollama.quirks.release >= (0, 3, 0):
                    self._embed(body)
                case "/api/chat":
                    self._generate(body, chat=True, field="messages")
                case "/v1/chat/completions":
                    self._openai(body)
                case _:
                    self._answer(404, {"error": "404 page not found"})
        except OllamaError as error:
            self._answer(error.status, {"error": error.text})
        except ConnectionError:
            self.close_connection = True

    def _generate(self, body: dict[str, Any], *, chat: bool, field: str) -> None:
        machine, name = self.server.ollama.machine, body["model"]
        embeds = machine.model(name).type == "embedding"
        if not body.get(field) and body.get("keep_alive") == 0:
            machine.unload(name)
            self._answer(200, {"model": name, "done": True, "done_reason": "unload"})
            return
        if embeds:
            raise OllamaError(400, f'"{name}" does not support {"chat" if chat else "generate"}')
        where: Place = "predict" if body.get(field) else "load"
        self._suffer(where, name)
        num_ctx = body.get("options", {}).get("num_ctx")
        shift = body.get("shift", True)
        resident = machine.resident(name, num_ctx, body.get("keep_alive"), self._wait, shift=shift)
        if not body.get(field):
            self._answer(200, {"model": name, "response": "", "done": True, "done_reason": "load"})
            return
        prediction = predict(machine, resident, body, chat=chat)
        self._stream(_lines(prediction, machine.quirks, chat=chat), name)

    def _embed(self, body: dict[str, Any]) -> None:
        """Answer with vectors; an empty list of texts loads the model."""
        machine, name, given = self.server.ollama.machine, body["model"], body.get("input") or []
        texts = [given] if isinstance(given, str) else given
        self._suffer("predict" if texts else "load", name)
        num_ctx = body.get("options", {}).get("num_ctx")
        resident = machine.resident(name, num_ctx, body.get("keep_alive"), self._wait)
        cut = body.get("truncate", True)
        try:
            found = [
                embed(resident.model, text, resident.context_length, cut=cut) for text in texts
            ]
        except Refused as refused:
            text = f"the input length exceeds the context length: {refused.error.title}"
            raise OllamaError(400, text) from None
        answer = {"model": name, "embeddings": [vector for vector, _ in found]}
        tokens = sum(tokens for _, tokens in found)
        self._answer(200, answer | ({"prompt_eval_count": tokens} if texts else {}))

    def _openai(self, body: dict[str, Any]) -> None:
        """Answer in OpenAI's form, which knows no context length."""
        machine = self.server.ollama.machine
        resident = machine.resident(body["model"], None, None, self._wait)
        prediction = predict(machine, resident, {"model": body["model"], **body}, chat=True)
        text = "".join(text for text, thought in pieces(prediction) if not thought)
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": prediction.prompt_tokens}
        self._answer(200, {"choices": [{"message": message}], "usage": usage})

    def _wait(self, seconds: float) -> None:
        """Wait for a load, until the client disconnects."""
        ends = time.monotonic() + seconds
        ollama = self.server.ollama
        while time.monotonic() < ends and not ollama.closing.wait(0.01):
            if not ollama.quirks.aborts_loads:
                continue
            readable = select.select([self.connection], [], [], 0)[0]
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                ollama.events.append("aborted")
                raise OllamaError(_ABORTED, "client closed request")

    def _suffer(self, where: Place, name: str) -> None:
        """Do what a fault at this place demands, if there is one."""
        ollama, name = self.server.ollama, name.partition(":")[0]
        kind = ollama.faults.strike(where, name)
        if kind == "crash":
            if where != "load":
                ollama.machine.remove(name, "crashed")
            raise OllamaError(500, RUNNER_GONE)
        if kind == "error":
            raise OllamaError(500, OTHER)
        if kind == "hang":
            hang(self, ollama.closing)
        if kind == "lost":
            lose_connection(self)
        if kind in ("garbage", "ends"):
            self._answer(200, "}" if kind == "garbage" else {})
            raise ConnectionError

    def _break(self, name: str) -> bool:
        """Return whether a fault after the first piece has ended the answer."""
        ollama, name = self.server.ollama, name.partition(":")[0]
        kind = ollama.faults.strike("fragment", name)
        if kind == "crash":
            ollama.machine.remove(name, "crashed")
            self._chunk({"error": RUNNER_GONE_IN_STREAM})
        elif kind == "error":
            self._chunk({"error": OTHER})
        elif kind == "hang":
            hang(self, ollama.closing)
        elif kind == "lost":
            lose_connection(self)
        elif kind == "garbage":
            self._chunk("}")
        return kind is not None

    def _stream(self, lines: Iterable[dict[str, Any]], name: str) -> None:
        quirks = self.server.ollama.quirks
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, line in enumerate(lines):
            if number == quirks.error_after:
                self._chunk({"error": RUNNER_GONE_IN_STREAM})
                break
            if number == quirks.lost_after:
                lose_connection(self)
            if number == quirks.frozen_after:
                self.server.ollama.closing.wait()
            if number == 1 and self._break(name):
                break
            self._chunk(line)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, line: dict[str, Any] | str) -> None:
        """Send a line; a text as it is."""
        data = (line if isinstance(line, str) else json.dumps(line)).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _answer(self, status: int, answer: dict[str, Any] | str) -> None:
        """Send an answer; a text as it is."""
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _lines(prediction: Prediction, quirks: Quirks, *, chat: bool) -> Iterable[dict[str, Any]]:
    for text, thought in pieces(prediction):
        said = {"thinking" if thought else ("content" if chat else "response"): text}
        if chat:
            yield {"message": {"role": "assistant", "content": "", **said}, "done": False}
        else:
            yield {"response": "", **said, "done": False}
    for call in prediction.calls:
        function = {"name": call.name, "arguments": call.parsed()}
        message = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
        yield {"message": message, "done": False}
    if not quirks.unfinished:
        empty: dict[str, Any] = {"message": {"content": ""}} if chat else {"response": ""}
        yield {**empty, **last_fields(prediction, quirks)}
