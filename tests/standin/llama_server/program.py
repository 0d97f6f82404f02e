"""A program that behaves as llama.cpp's `llama-server`, answering through xllamacpp or wrongly.

Run as a script with a behaviour and the arguments of `llama-server`. Help, version, errors and log
are in the form of build 10434.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

VERSION = "version: 0.1.0-dev (build 10434, commit 7e4c0a9)"
_OTHER_VERSIONS = {
    "old": "version: 4567 (0f1d2c3)",
    "packaged": "version: 0.6.0-dev (build 0, commit unknown)",
}
BUILD = "b10434-7e4c0a9"
GPU = "Vulkan0: Test GPU (8192 MiB, 8000 MiB free)"
FLAGS: Mapping[str, str | None] = {
    "-m, --model": "FNAME", "-c, --ctx-size": "N", "-np, --parallel": "N", "--host": "HOST",
    "--port": "PORT", "-fit, --fit": "[on|off]", "--no-context-shift": None, "--jinja": None,
    "--offline": None, "-cram, --cache-ram": "N", "--no-cache-idle-slots": None,
    "--sse-ping-interval": "N", "--chat-template": "JINJA_TEMPLATE", "-b, --batch-size": "N",
    "-ub, --ubatch-size": "N", "-ngl, --gpu-layers, --n-gpu-layers": "N",
    "-ts, --tensor-split": "N0,N1,N2,...", "-ncmoe, --n-cpu-moe": "N",
    "-ctk, --cache-type-k": "TYPE", "-ctv, --cache-type-v": "TYPE", "-t, --threads": "N",
    "-tb, --threads-batch": "N", "-fa, --flash-attn": "[on|off|auto]", "--list-devices": None,
    "--embedding, --embeddings": None, "--pooling": "{none,mean,cls,last,rank}",
    "--swa-full": None, "-kvu, --kv-unified": None, "--rope-scaling": "{none,linear,yarn}",
    "-v, --verbose": None, "-lv, --verbosity, --log-verbosity": "N", "--warmup, --no-warmup": None,
}  # fmt: skip


def llama_server(folder: Path) -> Path:
    """Return a program that answers: `LMSTRIX_TEST_LLAMA_SERVER` names a real one."""
    real = os.environ.get("LMSTRIX_TEST_LLAMA_SERVER")
    return Path(real) if real else write_llama_server(folder)


def write_llama_server(folder: Path, behaviour: str = "", *, name: str = "llama-server") -> Path:
    """Write an executable program into `folder`; see `_BEHAVIOURS` for what it can do wrong.

    `without: --fit` leaves a flag out, `gpu` lists one, and `old` is an old version.
    `packaged` is one built outside of a checkout.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-P", __file__, behaviour]
    if sys.platform == "win32":
        path = folder / f"{name}.cmd"
        path.write_text("@" + " ".join(f'"{word}"' for word in words) + " %*\n")
        return path
    path = folder / name
    path.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in words) + ' "$@"\n')
    path.chmod(0o755)
    return path


def main(behaviour: str, arguments: list[str]) -> None:
    kind, _, detail = behaviour.partition(": ")
    if any(name.startswith("LLAMA_ARG_") for name in os.environ):
        _fail("error: a variable of the environment sets an argument")
    if kind in _ALWAYS_WRONG:
        _ALWAYS_WRONG[kind]()
    flags = {names: value for names, value in FLAGS.items() if detail not in names.split(", ")}
    if kind == "old":
        flags["-fa, --flash-attn"] = None
        del flags["-fit, --fit"]
    if "--version" in arguments:
        version = _OTHER_VERSIONS.get(kind, VERSION)
        print(f"{version}\nbuilt with GNU 11.4.0 for Linux x86_64", file=sys.stderr)
    elif "--help" in arguments:
        print(_help(flags))
    elif "--list-devices" in arguments:
        print("Available devices:\n  " + (GPU if kind == "gpu" else "(none)"))
    else:
        _log("I cmn  common_param: common_params_print_info: verbosity = 3")
        serve = _WRONG_SERVERS.get(kind, _serve)
        serve(_parsed(arguments, flags))


def _help(flags: Mapping[str, str | None]) -> str:
    lines = ["----- common params -----", ""]
    for names, value in flags.items():
        words = f"{names} {value}" if value else names
        lines.append(f"{words:<40}what it does (default: -1)")
        lines.append(f"{'':<40}(env: LLAMA_ARG_WHAT_IT_DOES)")
    return "\n".join(lines)


def _parsed(arguments: list[str], flags: Mapping[str, str | None]) -> argparse.Namespace:
    spelled = {name: (names, value) for names, value in flags.items() for name in names.split(", ")}
    values: dict[str, Any] = {_field(names): None for names in FLAGS}
    rest = iter(arguments)
    for word in rest:
        if word not in spelled:
            _fail(f"error: invalid argument: {word}")
        names, value = spelled[word]
        values[_field(names)] = True if value is None else next(rest, None)
        if values[_field(names)] is None:
            _fail(f'error while handling argument "{word}": expected value for argument')
        if value and value.startswith("{") and values[_field(names)] not in value[1:-1].split(","):
            _fail(f'error while handling argument "{word}": invalid value')
    return argparse.Namespace(**values)


def _field(names: str) -> str:
    return names.rpartition("--")[2].replace("-", "_")


def _serve(asked: argparse.Namespace) -> None:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the embedded engine does
    import xllamacpp as llama

    params = llama.CommonParams()
    params.model.path = asked.model
    params.n_ctx = int(asked.ctx_size)
    params.n_parallel = int(asked.parallel)
    params.kv_unified = bool(asked.kv_unified)
    params.hostnames = [asked.host]
    params.port = int(asked.port)
    params.api_keys = [os.environ["LLAMA_API_KEY"]]
    params.fit_params = asked.fit != "off"
    if asked.log_verbosity:
        params.verbosity = int(asked.log_verbosity)
    params.warmup = not asked.no_warmup
    params.ctx_shift = not asked.no_context_shift
    params.offline = bool(asked.offline)
    params.cache_ram_mib = int(asked.cache_ram or 8192)
    params.cache_idle_slots = not asked.no_cache_idle_slots
    params.sse_ping_interval = int(asked.sse_ping_interval or 30)
    params.n_batch, params.n_ubatch = int(asked.batch_size or 2048), int(asked.ubatch_size or 512)
    if asked.embeddings:
        params.embedding = True
        if asked.pooling:
            kind = f"LLAMA_POOLING_TYPE_{asked.pooling.upper()}"
            params.pooling_type = llama.llama_pooling_type[kind]
    params.n_gpu_layers = int(asked.n_gpu_layers or -1)
    if asked.chat_template:
        params.chat_template = asked.chat_template
    if asked.threads:
        params.cpuparams.n_threads = int(asked.threads)
        params.cpuparams_batch.n_threads = int(asked.threads_batch or asked.threads)
    if asked.flash_attn:
        mode = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[asked.flash_attn]
        params.flash_attn_type = llama.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{mode}"]
    if asked.cache_type_k:
        params.cache_type_k = llama.ggml_type[f"GGML_TYPE_{asked.cache_type_k.upper()}"]
        params.cache_type_v = llama.ggml_type[f"GGML_TYPE_{asked.cache_type_v.upper()}"]
    _log(f"I srv    load_model: loading model '{asked.model}'")
    try:
        server = llama.Server(params)
    except RuntimeError:
        _fail("0.00.015.197 E srv  llama_server: exiting due to model loading error")
    _listening(server.listening_address)
    threading.Event().wait()


def _listening(address: str) -> None:
    _log("I srv  llama_server: model loaded")
    _log(f"I srv  llama_server: listening on {address}")


def _log(text: str) -> None:
    os.write(2, f"0.00.177.596 {text}\n".encode())  # at once: llama.cpp writes there, too


def _fail(text: str) -> NoReturn:
    print(text, file=sys.stderr, flush=True)
    time.sleep(0.1)  # llama.cpp is still writing its log
    os._exit(1)


# --- programs that are no llama-server, or a broken one


def _exit_at_once() -> None:
    os._exit(1)


def _print_help() -> None:
    print("usage: another-program [options]\n  --model NAME  the model")
    os._exit(0)


def _print_junk() -> None:
    while True:
        print("junk " * 20)


def _hang() -> None:
    threading.Event().wait()


_ALWAYS_WRONG = {
    "exits": _exit_at_once, "prints help": _print_help, "prints junk": _print_junk, "hangs": _hang,
}  # fmt: skip


# --- servers that are broken in one way


def _crash_at_load(_: argparse.Namespace) -> None:
    _log("I srv    load_model: loading model")
    os.kill(os.getpid(), signal.SIGSEGV if sys.platform != "win32" else signal.SIGTERM)


def _fail_at_load(_: argparse.Namespace) -> None:
    os._exit(1)


def _hang_at_load(_: argparse.Namespace) -> None:
    _log("I srv    load_model: loading model")
    threading.Event().wait()


def _log_endlessly(_: argparse.Namespace) -> None:
    while True:
        _log("I srv    load_model: still loading the model")


def _grant_half(asked: argparse.Namespace) -> None:
    asked.ctx_size = int(asked.ctx_size) // 2
    _serve(asked)


def _serve_on_gpu(asked: argparse.Namespace) -> None:
    """Plan a load of 4,000 MiB of weights and 1 MiB of KV cache a token, if it is a dry run."""
    if asked.fit == "on":
        context = int(asked.ctx_size)
        for row in (
            "| memory breakdown [MiB]     | total   free     self   model   context   compute    "
            "unaccounted |",
            f"|   - Vulkan0 (Test GPU)     |  8192 = 8000 + ({4_100 + context} =  4000 +  {context}"
            " +     100) +        -100 |",
            "|   - Host                   |                    300 =   200 +       0 +     100"
            "                |",
        ):
            _log(f"I cmn  common_memory_breakdown_print: {row}")
        _log("I cmn  common_fit_params: successfully fit params to free device memory")
    _serve_wrongly("gpu")(asked)


class _Answers(BaseHTTPRequestHandler):
    """A server that grants a context, counts tokens, and is broken in its predictions."""

    disable_nagle_algorithm = True  # else each answer waits 40 ms for a delayed ACK
    kind, n_ctx = "", 0

    def do_GET(self) -> None:
        self._answer({"default_generation_settings": {"n_ctx": self.n_ctx}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self._answer({"tokens": list(range(len(body["content"].split())))})
        elif self.kind == "crashes in prediction":
            _crash_at_load(argparse.Namespace())
        elif self.kind == "hangs in prediction":
            threading.Event().wait()
        elif self.kind == "prints junk in prediction":
            self._send(b"data: {junk\n\n")
        else:
            timings = {
                "prompt_n": 3, "predicted_n": 1, "prompt_per_second": 1, "predicted_per_second": 1,
            }  # fmt: skip
            if self.kind != "old":
                timings["cache_n"] = 0
            event = {"content": "5", "stop_type": "limit", "timings": timings}
            self._send(b"data: " + json.dumps(event).encode() + b"\n\n")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, value: object) -> None:
        self._send(json.dumps(value).encode())

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _serve_wrongly(kind: str) -> Any:
    def serve(asked: argparse.Namespace) -> None:
        handler = type("Handler", (_Answers,), {"kind": kind, "n_ctx": int(asked.ctx_size)})
        server = ThreadingHTTPServer((asked.host, 0), handler)
        _listening(f"http://127.0.0.1:{server.server_address[1]}")
        server.serve_forever()

    return serve


_WRONG_SERVERS = {
    "crashes at load": _crash_at_load,
    "fails at load": _fail_at_load,
    "hangs at load": _hang_at_load,
    "logs endlessly": _log_endlessly,
    "grants half": _grant_half,
    "gpu": _serve_on_gpu,
    **{kind: _serve_wrongly(kind) for kind in (
        "old", "crashes in prediction", "hangs in prediction", "prints junk in prediction",
    )},
}  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
