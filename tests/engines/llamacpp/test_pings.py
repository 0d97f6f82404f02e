"""A llama-server pings its client every 30 s by default, also where its model hangs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from threading import Event

import httpx
import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from tests.engines.openai.test_streams import Ignored
from tests.standin.openai.canned import Canned, CannedServer

PROPS = Canned(body=b'{"default_generation_settings": {"n_ctx": 512}}')
PREFILL = b'data: {"prompt_progress": {"total": 9, "cache": 0, "processed": 4, "time_ms": 1}}\n\n'


class Process:
    """A process that goes on running."""

    peak_memory_bytes: int | None = None
    killed_for_memory = False

    def __init__(self, ended: Event) -> None:
        self.ended = ended

    def activity(self) -> tuple[int, ...]:
        return ()

    def wait(self, timeout_seconds: float, /) -> int | None:
        return None

    def log(self) -> list[str]:
        return []

    def forget_log(self) -> None:
        pass

    def end(self) -> list[int]:
        self.ended.set()
        return []


@pytest.mark.parametrize("at_once", [False, True])
def test_pings_are_no_progress(at_once: bool) -> None:
    def pings() -> Iterator[bytes | float]:
        yield PREFILL
        for _ in repeat(None):
            yield b":\n\n"
            yield 0.05

    answers = {"/props": PROPS, "/completion": Canned(body=pings)}
    with CannedServer(answers) as server, httpx.Client(base_url=server.url, timeout=0.3) as client:
        instance = LlamaCppInstance(Process(server.closing), client, Path("t.gguf"), Ignored())

        def ask() -> Reply:
            return instance.complete("2 + 3 =", max_tokens=4)

        with pytest.raises(Failure) as failed:
            instance.at_once([ask]) if at_once else ask()
        assert server.closing.is_set()
    assert failed.value.verdict is Verdict.TIMEOUT
