"""A router as `llama-server --models-preset` is one, whose models are servers of the stand-in.

It forwards predictions to real llama.cpp, and refuses in the words of build 10434.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from msgspec import Struct

from tests.standin.llama_server.program import BUILD

START_SECONDS = 120.0


class Preset(Struct, frozen=True):
    """A section: its model file and context length, which may be left to the model."""

    path: Path
    context_length: int | None = None
    program: Path | None = None
    """Its server, if it is not the router's."""
    arguments: tuple[str, ...] = ()


class _Loaded(Struct):
    process: subprocess.Popen[str]
    address: str | None = None
    port: str = "0"


class Router:
    """The router at `url` with the models of `presets`, started by `program`."""

    def __init__(
        self,
        program: Path,
        presets: Mapping[str, Preset],
        *,
        models_max: int = 4,
        api_key: str = "",
        is_router: bool = True,
    ) -> None:
        self.presets = dict(presets)
        self.changed: dict[str, Preset] | None = None
        """What its file of presets holds now, if it has been edited."""
        self.models_max = models_max
        self.api_key = api_key
        self.is_router = is_router
        self.loads: list[str] = []
        self.unloads: list[str] = []
        self._program = program
        self._loaded: dict[str, _Loaded] = {}
        self._lock = Lock()
        handler = type("Handler", (_Handler,), {"router": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.host = f"llama-server+{self.url}"

    def __enter__(self) -> Router:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for name in list(self._loaded):
            self.end(name)

    def running(self) -> list[str]:
        """The sections in memory, or on their way there."""
        return [name for name, each in self._loaded.items() if each.process.poll() is None]

    def start(self, name: str) -> None:
        """Load a section, as one of its clients does; the one used last longest ago makes room."""
        preset = self.presets[name]
        if len(self.running()) >= self.models_max:
            self.end(self.running()[0])
        size = str(preset.context_length or 0)
        program = preset.program or self._program
        words = [program, "-m", preset.path, "-c", size, "-np", "1", "--host", "127.0.0.1"]
        process = subprocess.Popen(
            [*words, "--port", "0", "-t", "1", *preset.arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "LLAMA_API_KEY": "inner"},
        )
        loaded = self._loaded[name] = _Loaded(process, port=f"{50_000 + len(self.loads)}")
        Thread(target=self._read, args=(loaded,), daemon=True).start()

    def end(self, name: str) -> None:
        """Unload a section, as one of its clients does."""
        loaded = self._loaded.pop(name)
        loaded.process.kill()
        loaded.process.wait()

    def crash(self, name: str) -> None:
        """Kill the server of a section."""
        self._loaded[name].process.kill()
        self._loaded[name].process.wait()

    def _read(self, loaded: _Loaded) -> None:
        assert loaded.process.stderr is not None
        with loaded.process.stderr as log:
            for line in log:
                found = re.search(r"listening on (http://[\w.]+:\d+)", line)
                if found and loaded.address is None:
                    loaded.address = found[1]

    def address_of(self, name: str) -> str | None:
        loaded = self._loaded.get(name)
        return loaded.address if loaded is not None and loaded.process.poll() is None else None

    def listing(self) -> list[dict[str, Any]]:
        return [{"id": name, "status": self._status(name, at)} for name, at in self.presets.items()]

    def _status(self, name: str, preset: Preset) -> dict[str, Any]:
        loaded = self._loaded.get(name)
        args = [str(self._program), "--port", loaded.port if loaded else "0"]
        if preset.context_length is not None:
            args += ["--ctx-size", str(preset.context_length)]
        status: dict[str, Any] = {"value": "unloaded", "args": [*args, *preset.arguments]}
        if loaded is not None and loaded.process.poll() is not None:
            status |= {"failed": True, "exit_code": 1}
        elif loaded is not None:
            status["value"] = "loading" if loaded.address is None else "loaded"
        return status

    def reload(self) -> None:
        """Read the presets again, which ends the models whose sections have changed."""
        if self.changed is not None:
            for name in self.running():
                if self.changed.get(name) != self.presets[name]:
                    self.end(name)
            self.presets, self.changed = self.changed, None

    def answer(self, path: str, model: str) -> tuple[int, object]:
        """Answer what the router itself answers."""
        with self._lock:
            if path == "/models/load":
                if model not in self.presets:
                    return 404, _error("File Not Found")
                if model in self.running():
                    return 400, _error("model is already running")
                self.loads.append(model)
                self.start(model)
                return 200, {"success": True}
            if model not in self.running():
                return 400, _error("model is not running")
            self.unloads.append(model)
            self.end(model)
            return 200, {"success": True}


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # else each answer waits 40 ms for a delayed ACK
    router: Router

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        model = query.get("model", [""])[0]
        if not self._is_allowed():
            return
        if url.path == "/models" and self.router.is_router:
            if "reload" in query:
                self.router.reload()
            self._send(200, {"data": self.router.listing()})
        elif model:
            self._forward("GET", url.path, model, b"")
        else:
            role = {"role": "router", "max_instances": self.router.models_max}
            self._send(200, {**(role if self.router.is_router else {}), "build_info": BUILD})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        model = json.loads(body).get("model", "")
        path = urlsplit(self.path).path
        if not self._is_allowed():
            return
        if path in ("/models/load", "/models/unload"):
            self._send(*self.router.answer(path, model))
        else:
            self._forward("POST", path, model, body)

    def _is_allowed(self) -> bool:
        key = self.router.api_key
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            self._send(401, _error("Invalid API Key"))
            return False
        return True

    def _forward(self, method: str, path: str, model: str, body: bytes) -> None:
        address = self.router.address_of(model)
        if address is None:
            self._send(400, _error("model is not loaded"))
            return
        headers = {"Authorization": "Bearer inner"}
        begun = False
        try:
            with (
                httpx.Client(timeout=START_SECONDS, trust_env=False) as client,
                client.stream(method, address + path, content=body, headers=headers) as answer,
            ):
                begun = True
                self.send_response(answer.status_code)
                self.end_headers()
                for chunk in answer.iter_bytes():
                    self.wfile.write(chunk)
                    self.wfile.flush()
        except httpx.HTTPError as error:
            if not begun:
                self._send(500, _error(f"proxy error: {type(error).__name__} {error}"))
        except OSError:
            return  # the client has gone

    def _send(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _error(message: str) -> dict[str, object]:
    return {"error": {"code": 400, "message": message, "type": "invalid_request_error"}}
