"""llama.cpp's server as a child process that cannot outlive its parent.

Run as a script, it is a supervisor: it starts the server and kills it when its own standard input
ends, which happens whenever the parent is gone. The server is this script once more, through
`xllamacpp`, or the `command` of its configuration, such as the user's own `llama-server`. A thread
of the server could not do that, for `xllamacpp.Server()` holds the interpreter lock as long as a
model loads.

The first line of standard input is the configuration, a JSON object (see `_serve` and
`_run_command`); so no process list shows the key in it. The one line on standard output is
`{"address": "http://..."}`; all other output goes to standard error.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

_FAILED = 1
"""Exit status of a `llama-server` that could not load the model, or refuses an argument."""
REFUSED = 70
"""Exit status of a server that could not load the model and has logged why."""
_ORPHAN_POLL_SECONDS = 1.0
_GPU_BATCH_TOKENS = 512
_CPU_BATCH_TOKENS = 128
"""Prefilled between two heartbeats; larger batches are no faster on a CPU."""
_PADDING = 256
"""llama.cpp rounds a context length up to a multiple of this."""
_DRY_RUN_VERBOSITY = 4
"""The least at which llama.cpp logs its memory table."""
_DRY_RUN_BYTES = 4 * 1024**3
"""The most memory that a dry run may allocate."""
_LISTENING = re.compile(rb"listening on (http://[\w.:\[\]-]*:[1-9]\d*)")
_LINE_BYTES = 64 * 1024
_PR_SET_PDEATHSIG = 1
_DRAIN_SECONDS = 5.0
"""Time limit for the remaining output of a server that has exited."""
_LOAD_SETTINGS = (
    "batch_size", "gpu_layers", "threads", "flash_attention", "kv_cache_type", "parallel",
)  # fmt: skip


def configuration(
    path: Path,
    context_length: int,
    load: Mapping[str, object],
    *,
    api_key: str,
    dry_run: bool = False,
    replace_chat_template: bool = False,
    embedding: Mapping[str, bool] | None = None,
) -> dict[str, object]:
    """Return the configuration of a server; `load` has the fields of `LoadSettings`.

    `embedding` has the fields of `EmbeddingLoad`, for an embedding model. A `dry_run` plans the
    load and logs the memory that it takes, to standard output.
    """
    return {
        "path": str(path),
        "context_length": context_length,
        "api_key": api_key,
        "dry_run": dry_run,
        "replace_chat_template": replace_chat_template,
        "embedding": embedding,
        **{name: load[name] for name in _LOAD_SETTINGS},
    }


def command_configuration(
    command: Sequence[str], environment: Mapping[str, str], *, lines: bool = False
) -> dict[str, object]:
    """Return the configuration of a server that is another program.

    With `lines` all that it writes is passed on to standard output, and no address.
    """
    return {"command": list(command), "environment": dict(environment), "lines": lines}


def main() -> NoReturn:
    """Supervise a server, serve, or list the devices, by the arguments."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.argv[1:] == ["serve"]:
        _serve()
    if sys.argv[1:] == ["devices"]:
        _list_devices()
    _supervise()


def _supervise() -> NoReturn:
    parent = os.getppid()
    line = sys.stdin.buffer.readline()
    settings: dict[str, Any] = json.loads(line)
    if "command" in settings:
        _supervise_command(settings, parent)
    server = subprocess.Popen(
        [sys.executable, "-P", __file__, "serve"], stdin=subprocess.PIPE, bufsize=0
    )
    _at_end_of_input(server.kill)
    assert server.stdin is not None
    with contextlib.suppress(OSError):  # it has exited: its exit status shows why
        server.stdin.write(line)
    _exit(_wait(server, server.kill, parent))


def _supervise_command(settings: Mapping[str, Any], parent: int) -> NoReturn:
    """Run `command` with `environment`.

    What it writes goes to standard error, and its address, found there, to standard output; with
    `lines`, all goes to standard output.
    """
    import psutil

    try:
        server = subprocess.Popen(
            settings["command"],
            env=settings["environment"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(REFUSED)
    process = psutil.Process(server.pid)

    def kill() -> None:
        """Kill it and its descendants: it may be a script that has started the real server."""
        with contextlib.suppress(psutil.Error):
            for each in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.Error):
                    each.kill()

    _at_end_of_input(kill)
    serves = threading.Event()
    reader = threading.Thread(
        target=_forward, args=(server.stdout, settings["lines"], serves), daemon=True
    )
    reader.start()
    status = _wait(server, kill, parent)
    reader.join(_DRAIN_SECONDS)  # a pipe still open after that was inherited by another process
    _exit(REFUSED if status == _FAILED and not serves.is_set() else status)


def _forward(output: IO[bytes], lines: bool, serves: threading.Event) -> None:
    while line := output.readline(_LINE_BYTES):
        found = None if serves.is_set() else _LISTENING.search(line)
        if lines:
            os.write(1, line)
        elif found:
            serves.set()
            os.write(1, json.dumps({"address": found[1].decode()}).encode() + b"\n")
        if not lines:
            os.write(2, line)


def _wait(server: subprocess.Popen[bytes], kill: Callable[[], None], parent: int) -> int:
    """Return the exit status of `server`, as a shell does; kill it if the parent has gone."""
    while True:
        try:
            status = server.wait(_ORPHAN_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:  # end of file may be kept back by a fork of the parent
                kill()
        else:
            return 128 - status if status < 0 else status


def _end_with_parent() -> None:
    """Have this process killed when its parent exits, by whatever signal (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve() -> NoReturn:
    settings: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    _at_end_of_input(lambda: _exit(0))  # the supervisor itself was killed
    dry_run = settings["dry_run"]
    answer = os.dup(1)
    os.dup2(1, 2) if dry_run else os.dup2(2, 1)
    if dry_run:
        _limit_memory()

    # By default OpenMP's threads spin long for each other: on a machine with other work to do
    # that made replies twenty times slower, while giving way sooner costs an idle one nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    llama: Any = importlib.import_module("xllamacpp")
    params = llama.CommonParams()
    params.model.path = settings["path"]
    params.n_parallel = settings["parallel"] or 1
    params.kv_unified = False  # else one request may take the context of the others
    params.n_ctx = settings["context_length"] * params.n_parallel
    layers = settings["gpu_layers"]
    gpu = any(map(_is_gpu, llama.get_device_info()))
    if layers and not gpu:
        print(f"gpu_layers: {layers}, but xllamacpp finds no GPU here", file=sys.stderr)
        sys.exit(REFUSED)
    if layers is not None:
        params.n_gpu_layers = layers
    batches = _CPU_BATCH_TOKENS if layers == 0 or not gpu else _GPU_BATCH_TOKENS
    params.n_batch = settings["batch_size"] or batches
    params.n_ubatch = min(params.n_ubatch, params.n_batch)
    if (embedding := settings["embedding"]) is not None:
        params.embedding = True
        if embedding["takes_mean"]:
            params.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        if embedding["in_one_batch"]:
            whole = -(-settings["context_length"] // _PADDING) * _PADDING
            params.n_batch = params.n_ubatch = settings["batch_size"] or whole
    params.api_keys = [settings["api_key"]]
    if hasattr(params, "hostnames"):
        params.hostnames = ["127.0.0.1"]
    else:  # before 2026.10
        params.hostname = "127.0.0.1"
    params.port = 0
    params.fit_params = dry_run  # if not: the requested context, or an error
    if dry_run:
        params.warmup = False
        params.verbosity = _DRY_RUN_VERBOSITY
        params.load_mode = llama.llama_load_mode.LLAMA_LOAD_MODE_NONE
    params.ctx_shift = False
    params.cache_prompt = True
    params.cache_ram_mib = 0  # else up to 8 GiB of old prompts are kept beside the KV cache
    params.cache_idle_slots = False
    params.sse_ping_interval = -1  # a ping does not show progress of the model
    params.offline = True
    params.ui = False
    if settings["replace_chat_template"]:
        params.chat_template = "chatml"
    if (threads := settings["threads"]) is not None:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    if (flash_attention := settings["flash_attention"]) is not None:
        modes = llama.llama_flash_attn_type
        params.flash_attn_type = (
            modes.LLAMA_FLASH_ATTN_TYPE_ENABLED
            if flash_attention
            else modes.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
    if (kv_cache_type := settings["kv_cache_type"]) is not None:
        params.cache_type_k = params.cache_type_v = getattr(
            llama.ggml_type, f"GGML_TYPE_{kv_cache_type.upper()}"
        )
    try:
        server = llama.Server(params)  # a dry run is ended from outside before it returns
    except RuntimeError:
        sys.exit(REFUSED)  # not at once: llama.cpp is still writing to its log why
    os.write(answer, json.dumps({"address": server.listening_address}).encode() + b"\n")
    threading.Event().wait()
    raise AssertionError("unreachable: the event is never set")


def _limit_memory() -> None:
    """Make the load fail that follows a dry run, unless this process is ended before.

    It fails only without a memory map, which would read the whole file first.
    """
    if sys.platform == "linux":  # others enforce no such limit
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = _DRY_RUN_BYTES if most == resource.RLIM_INFINITY else min(most, _DRY_RUN_BYTES)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _list_devices() -> NoReturn:
    """Print the devices besides the processor as a JSON array, as `core.memory.Device` has them."""
    llama: Any = importlib.import_module("xllamacpp")
    devices = [
        {
            "name": device["name"],
            "total_bytes": device["memory_total"],
            "free_bytes": device["memory_free"],
            "shares_host_memory": "IGPU" in device["type"].name or sys.platform == "darwin",
        }
        for device in llama.get_device_info()
        if _is_gpu(device)
    ]
    print(json.dumps(devices), flush=True)
    _exit(0)


def _is_gpu(device: Mapping[str, Any]) -> bool:
    return "GPU" in device["type"].name


def _at_end_of_input(act: Callable[[], object]) -> None:
    def wait() -> None:
        while os.read(0, 4096):
            pass
        act()

    threading.Thread(target=wait, daemon=True).start()


def _exit(status: int) -> NoReturn:
    # At once: Python's own exit would wait for what llama.cpp is doing.
    os._exit(status - 2**32 if status >= 2**31 else status)


if __name__ == "__main__":
    main()
