"""Runs of the real model with llama.cpp that record each load and each request."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from measuring import ROOT, run_pytest, write_manifest
from msgspec import Struct

sys.path.insert(0, str(ROOT))

from tests.standin.weights import smollm2

RECORD = "record.jsonl"
CONFTEST = """
import json
from pathlib import Path
from msgspec.structs import asdict
from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance

RECORD = Path(__file__).parent / "record.jsonl"
configuration, reply = LlamaCppEngine._configuration, LlamaCppInstance._reply

def note(**entry):
    with RECORD.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\\n")

def noted_configuration(*args, **options):
    found = configuration(*args, **options)
    note(load=dict(found))
    return found

def noted_reply(self, url, body, max_tokens):
    found = reply(self, url, body, max_tokens)
    note(url=url, body=dict(body), prefilled=found.prompt_tokens - found.cached_prompt_tokens)
    return found

LlamaCppEngine._configuration = noted_configuration
LlamaCppInstance._reply = noted_reply
"""


class Entry(Struct, frozen=True):
    """A load, or a request to what was loaded before it."""

    load: dict[str, Any] | None = None
    """The configuration of the server."""
    url: str = ""
    body: dict[str, Any] = {}
    prefilled: int = 0
    """Prompt tokens that were not in the KV cache."""


def write_project(folder: Path, contexts: Sequence[int]) -> None:
    """Write a project with the real model at `contexts`; one thread, so that time is work."""
    entry = f"id: smollm2, source: '{smollm2().as_posix()}', contexts: {list(contexts)}"
    write_manifest(folder, [f"{{{entry}, load: {{threads: 1}}}}"], "{engine: llamacpp}")
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")


def run(folder: Path, checks: str) -> list[Entry]:
    """Run `checks` on the project without results of before, and return what was recorded."""
    record = folder / RECORD
    record.unlink(missing_ok=True)
    run_pytest(folder, "--lmstrix-all", "-m", checks, check=False)
    return read(record)


def read(record: Path) -> list[Entry]:
    return [msgspec.json.decode(line, type=Entry) for line in record.read_bytes().splitlines()]
