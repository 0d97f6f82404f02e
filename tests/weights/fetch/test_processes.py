"""Several processes download one file once."""

from __future__ import annotations

import subprocess
import sys
import threading

from pytest_lmstrix.weights.fetch import fetch
from tests.standin.file_server import FileServer
from tests.weights.fetch.getter import CONTENT, Getter

FETCH = """
import sys
from pathlib import Path
from pytest_lmstrix.weights.fetch import fetch
print(fetch(sys.argv[1], base_dir=Path(), cache_dir=Path(sys.argv[2])))
"""


def start(source: str, get: Getter) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, source, str(get.cache_dir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_download_once(get: Getter, server: FileServer) -> None:
    server.hold = threading.Event()
    source = f"{server.base}/f.gguf"
    with start(source, get) as first:
        assert server.asked.wait(30)
        with start(source, get) as second:
            server.hold.set()
            outputs = {first.communicate(timeout=60)[0], second.communicate(timeout=60)[0]}
    assert outputs == {f"{get.is_cached(source)}\n"}
    assert len(server.requests) == 1


def test_waiting_for_another_process_is_reported(get: Getter, server: FileServer) -> None:
    server.hold = threading.Event()
    source = f"{server.base}/f.gguf"
    seen: list[int] = []

    def progress(done: int, total: int | None) -> None:
        seen.append(done)
        assert server.hold is not None
        server.hold.set()

    with start(source, get) as first:
        assert server.asked.wait(30)
        fetch(source, base_dir=get.base_dir, cache_dir=get.cache_dir, progress=progress)
        first.communicate(timeout=60)
    assert seen
    assert len(server.requests) == 1


def test_a_killed_download_is_resumed(get: Getter, server: FileServer) -> None:
    server.hold = threading.Event()
    source = f"{server.base}/f.gguf"
    with start(source, get) as process:
        assert server.asked.wait(30)
        process.kill()
    server.hold.set()
    assert get(source).read_bytes() == CONTENT
