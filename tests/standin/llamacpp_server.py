"""A real llama.cpp server with SmolLM2, started by hand as users start one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import structs

from pytest_lmstrix.core.types import LoadSettings
from pytest_lmstrix.engines.llamacpp import child as child_program
from pytest_lmstrix.system.child_process import Child
from tests.standin import weights

START_SECONDS = 120.0


@contextmanager
def llamacpp_server(context_length: int, *, api_key: str) -> Iterator[str]:
    """Run a server with one model and one slot; yield its URL."""
    # Several threads are very slow on a busy machine.
    settings = structs.asdict(LoadSettings(threads=1))
    path = weights.smollm2()
    configuration = child_program.configuration(path, context_length, settings, api_key=api_key)
    child = Child(
        [sys.executable, "-P", child_program.__file__], json.dumps(configuration).encode() + b"\n"
    )
    try:
        line = child.lines.get(timeout=START_SECONDS)
        assert line is not None, "\n".join(child.log())
        yield str(json.loads(line)["address"])
    finally:
        child.end()
