"""Unloads, crashes, hangs and interrupts leave no process; no other program can use the server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from msgspec.structs import replace

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LoadSettings
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp import child
from tests.engines.llamacpp.child_process.loads import (
    PATIENCE,
    ModelLoader,
    Recorder,
    arguments,
    gone,
)
from tests.standin import weights

pytest.importorskip("xllamacpp")

signals = pytest.mark.skipif(sys.platform == "win32", reason="there are no signals on Windows")


def test_the_server_listens_on_loopback_and_requires_its_key(loader: ModelLoader) -> None:
    instance = loader.load()
    (listening,) = (c for c in loader.server().net_connections("tcp") if c.status == "LISTEN")
    assert listening.laddr.ip == "127.0.0.1"
    base = f"http://127.0.0.1:{listening.laddr.port}"
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        reply = httpx.post(
            f"{base}/completion",
            json={"prompt": "a", "n_predict": 1},
            headers=headers,
            trust_env=False,
        )
        assert reply.status_code == 401
    instance.unload()


def test_the_key_is_not_in_the_process_list(loader: ModelLoader) -> None:
    instance = loader.load()
    key = instance._client.headers["Authorization"].removeprefix("Bearer ")
    assert len(key) >= 32
    for process in loader.processes():
        assert key not in " ".join(process.cmdline())
        if loader.engine.name == "llamacpp":
            *_, script = (argument for argument in process.cmdline() if argument != "serve")
            assert script == child.__file__
            assert len(process.cmdline()) <= 4
    instance.unload()


def test_proxies_are_not_used(loader: ModelLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    instance = loader.load()
    assert instance.count_tokens("a b c") == 3
    instance.unload()


def test_unload_ends_every_process_and_is_idempotent(loader: ModelLoader) -> None:
    instance = loader.load()
    processes = loader.processes()
    assert len(processes) >= 2
    assert (instance.peak_memory_bytes or 0) > 90e6
    instance.unload()
    assert not any(process.is_running() for process in processes)
    instance.unload()
    assert (instance.peak_memory_bytes or 0) > 90e6
    with pytest.raises(Failure, match="unloaded"):
        instance.complete("a", max_tokens=1)


def test_an_engine_does_not_keep_models_of_another_alive(loader: ModelLoader) -> None:
    first, second = loader.load(), loader.load()
    first.unload()
    left = loader.processes()
    assert second.count_tokens("a b c") == 3
    second.unload()
    assert gone(left)


@signals
def test_a_killed_server_is_a_crash_with_its_exit_status(loader: ModelLoader) -> None:
    progress = Recorder(on_prefill=lambda: loader.server().kill())
    instance = loader.load(512, progress)
    with contextlib.suppress(Failure):
        instance.complete("word " * 600, max_tokens=1)  # the refused connection is not the cause
    with pytest.raises(Failure, match="SIGKILL") as failure:
        instance.complete("word " * 400, max_tokens=1)
    assert failure.value.verdict is Verdict.CRASHED
    assert (failure.value.exit_status, failure.value.phase) == (-9, "predict")
    assert "exceeds the available" not in failure.value.text
    with pytest.raises(Failure, match="SIGKILL"):
        instance.count_tokens("a")
    instance.unload()


@signals
def test_a_server_killed_while_it_loads_is_a_crash(loader: ModelLoader) -> None:
    progress = Recorder(on_load=lambda: loader.server().kill())
    with pytest.raises(Failure, match="SIGKILL") as failure:
        loader.load(8192, progress)
    assert failure.value.verdict is Verdict.CRASHED
    assert (failure.value.exit_status, failure.value.phase) == (-9, "load")


@signals
def test_the_log_of_a_server_that_failed_is_kept_and_named(
    loader: ModelLoader, tmp_path: Path
) -> None:
    engine = loader.start(load_timeout=PATIENCE, reply_timeout=PATIENCE, logs=tmp_path)
    loader = replace(loader, engine=engine)
    loader.load(512).unload()
    assert list(tmp_path.iterdir()) == []

    at_odds = LoadSettings(kv_cache_type="q8_0", flash_attention=False)
    with pytest.raises(Failure, match="flash_attn") as at_load:
        loader.load(8192, load=at_odds)
    instance = loader.load(512, Recorder(on_prefill=lambda: loader.server().kill()))
    with pytest.raises(Failure) as at_work:
        instance.complete("word " * 400, max_tokens=1)
    instance.unload()
    named = [Path(each.value.text.rpartition("\nlog: ")[2]) for each in (at_load, at_work)]
    assert sorted(tmp_path.iterdir()) == named
    assert "smollm2-8192" in named[0].name
    assert "flash_attn" in named[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("which", ["server", "supervisor"])
def test_a_hung_reply_times_out_and_leaves_no_process(loader: ModelLoader, which: str) -> None:
    def hang() -> None:
        for process in loader.processes() if which == "supervisor" else [loader.server()]:
            process.suspend()

    loader = replace(loader, engine=loader.start(load_timeout=PATIENCE, reply_timeout=2.0))
    instance = loader.load(512, Recorder(on_prefill=hang), load=LoadSettings(threads=1))
    with pytest.raises(Failure, match=r"no progress for 2 s while answering") as failure:
        instance.complete("word " * 500, max_tokens=1)
    assert failure.value.verdict is Verdict.TIMEOUT
    assert loader.processes() == []


def test_a_hung_load_times_out_and_leaves_no_process(loader: ModelLoader) -> None:
    progress = Recorder(on_load=lambda: loader.server().suspend())
    loader = replace(loader, engine=loader.start(load_timeout=1.0))
    with pytest.raises(Failure, match="no progress for 1 s while loading") as failure:
        loader.load(512, progress)
    assert failure.value.verdict is Verdict.TIMEOUT


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupt_leaves_no_process(loader: ModelLoader) -> None:
    with pytest.raises(KeyboardInterrupt):
        loader.load(512, Recorder(on_load=_interrupt))
    assert loader.processes() == []
    instance = loader.load(512, Recorder(on_prefill=_interrupt))
    with pytest.raises(KeyboardInterrupt):
        instance.complete("word " * 300, max_tokens=1)
    assert loader.processes() == []


@signals
def test_ctrl_c_does_not_reach_the_server(loader: ModelLoader) -> None:
    instance = loader.load()
    for process in loader.processes():
        if sys.platform != "win32":
            assert os.getsid(process.pid) != os.getsid(0)
        if child.__file__ in process.cmdline():  # others are programs that end by it
            process.send_signal(2)
    assert instance.count_tokens("a b c") == 3
    instance.unload()


PARENT = """
import sys
from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine
from pytest_lmstrix.engines.llamacpp.own_binary import LlamaServerEngine
from pytest_lmstrix.core.types import LoadSettings, Model

class Progress:
    def __call__(self, fraction):
        print("loading", flush=True)
    def prefill(self, done, total):
        print("replying", flush=True)

model = Model(
    id="tiny", engine="llamacpp", source=sys.argv[1], load=LoadSettings(threads=1, batch_size=64)
)
engine = LlamaServerEngine(sys.argv[2]) if sys.argv[2:] else LlamaCppEngine()
instance = engine.load(model, 2048, Progress())
instance.complete("word " * 2000, max_tokens=1)
"""


@pytest.mark.parametrize("moment", ["starting", "loading", "replying"])
def test_the_server_exits_with_its_parent(loader: ModelLoader, moment: str) -> None:
    program = getattr(loader.start, "args", ())
    command = [sys.executable, "-c", PARENT, str(weights.smollm2()), *program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = loader.server()
        if moment != "starting":
            while parent.stdout.readline().strip() != moment:
                assert parent.poll() is None
        descendants = psutil.Process(parent.pid).children(recursive=True)
        if moment == "loading":
            # A load holds the interpreter lock, so no thread of the server could end it.
            server.suspend()
        parent.kill()
    assert server in descendants
    assert gone(descendants)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_a_forked_child_does_not_keep_the_server_alive(loader: ModelLoader) -> None:
    # It holds the other end of the server's pipe, so there is no end of file.
    fork = "import os, time\nif os.fork() == 0: time.sleep(600)\n"
    parent_code = PARENT.replace("instance.complete", fork + "instance.complete")
    program = getattr(loader.start, "args", ())
    command = [sys.executable, "-c", parent_code, str(weights.smollm2()), *program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        while parent.stdout.readline().strip() != "replying":
            assert parent.poll() is None
        descendants = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        (fork_of_it,) = (p for p in descendants if PARENT[:20] in " ".join(arguments(p)))
        assert gone([p for p in descendants if p != fork_of_it])
        fork_of_it.kill()
