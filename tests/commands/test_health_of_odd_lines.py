"""A line that the reports could not take is an error of the registry's health, and set aside."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_lmstrix.registry.lines import encode
from tests.end_to_end.project import Project
from tests.registry.results import a_result

# Each is one field of an otherwise good line.
DAMAGED: list[tuple[str, str]] = [
    ("recall", '{"abc": true}'),
    ("recall", '{"1e400": true}'),
    ("recall", '{"nan": true}'),
    ("ttft_seconds", "1e999"),
    ("ttft_seconds", "Infinity"),
    ("ttft_seconds", "NaN"),
    ("ttft_seconds", "-1"),
    ("load_seconds", "1e300"),
    ("decode_tokens_per_second", "1e20"),
    ("prompt_tokens", str(2**70)),
    ("granted_context_length", str(2**70)),
    ("granted_context_length", "-5"),
    ("context_length", str(2**70)),
    ("seed", str(2**70)),
    ("seed", "1" + "0" * 400),
    ("check_version", str(2**70)),
    ("peak_memory_bytes", str(2**64)),
    ("at", '"9999-12-31T23:59:59-12:00"'),
]
ODD: list[tuple[str, str]] = [
    ("recall", "{}"),
    ("recall", '{"0.5": true, "1": false}'),
    ("ttft_seconds", "0"),
    ("ttft_seconds", "5e-324"),
    ("decode_tokens_per_second", "0"),
    ("granted_context_length", "0"),
    ("granted_context_length", str(2**31 - 1)),
    ("seed", "-1"),
    ("at", '"0001-01-01T00:00:00Z"'),
    ("at", '"9999-12-31T23:59:59Z"'),
    ("notes", json.dumps(["slow: " + "x" * 100_000, "\x1b[2J<b>|"])),
    ("detail", json.dumps("\u202e\x1b[2J\n::error::x" * 1_000)),
    ("replies", json.dumps(["x"] * 1_000)),
    ("check", json.dumps("own[\n|<b>]")),
    ("host", json.dumps("\x00\x1b")),
    ("machine", json.dumps("x" * 100_000)),
    ("fingerprint", '""'),
    ("settings", '"{not json"'),
    ("settings", '"[1]"'),
    ("run", '""'),
    ("engine_version", json.dumps("\x1b[2J" * 100)),
]


def line(model: str, field: str, value: str) -> bytes:
    fields: dict[str, Any] = json.loads(encode(a_result(512, model=model, engine="fake")))
    fields[field] = "@"
    return json.dumps(fields).replace('"@"', value).encode() + b"\n"


def test_what_is_not_damaged_the_reports_can_take(project: Project) -> None:
    lines = [line(f"m{at}", *each) for at, each in enumerate([*ODD, *DAMAGED])]
    registry = project.path / "reports" / "registry.jsonl"
    registry.parent.mkdir()
    registry.write_bytes(b"".join(lines))
    names = [f"m{at}" for at in range(len(lines))]
    project.engine(**dict.fromkeys(names, ""))
    project.manifest(json.dumps([{"id": name, "contexts": [512]} for name in names]))

    health = project.run("--lmstrix-health")
    assert health.ret != 0
    damaged = [text for text in health.outlines if "damaged: " in text]
    assert len(damaged) == len(DAMAGED)

    for args in ((), ("--all", "--lmstrix-fail-on-regression")):
        result = project.run("--lmstrix", *args)
        assert result.ret == pytest.ExitCode.OK
        assert "INTERNALERROR" not in result.stdout.str()
        told = [text for text in result.outlines if "left out" in text and "cases left" not in text]
        assert all(f"{len(DAMAGED)} damaged lines left out" in text for text in told), told
        result.stdout.fnmatch_lines(["model * verdict *"])
    assert project.run("--lmstrix-list", "-v").ret == 0
    assert project.run("--lmstrix-list", "--lmstrix-format=json").ret == 0
