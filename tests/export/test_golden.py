"""What is printed for each program, as golden files."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from pytest_lmstrix.command_options import EXPORT_APPS
from pytest_lmstrix.export.apps import APPS, parse_targets
from pytest_lmstrix.export.jsonc import parse_json
from tests.export.results import exported

GOLDEN = Path(__file__).parent / "golden"
LM_STUDIO = exported()
LLAMA_CPP = exported(8191, "smollm2", "llamacpp", "models/smollm2.gguf", "size:93 path:/m.gguf")
OLLAMA = exported(16_384, "qwen3:8b", "ollama", fingerprint="sha256:0")
ENTRIES = LM_STUDIO, LLAMA_CPP, OLLAMA


@pytest.mark.parametrize("name", APPS)
def test_the_settings_are_as_in_the_golden_file(name: str) -> None:
    rendered = APPS[name].render(ENTRIES)
    left_out = "".join(f"not exported: {each.model}: {each.reason}\n" for each in rendered.left_out)
    text = (rendered.text + left_out).replace("models\\smollm2", "models/smollm2")
    golden = (GOLDEN / f"{name}.txt").read_bytes().decode()
    assert text == golden.replace("\r\n", "\n")


def test_every_program_has_an_option_and_every_golden_file_a_program() -> None:
    assert sorted(EXPORT_APPS) == sorted(APPS)
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted(APPS)


@pytest.mark.parametrize("name", ["json", "vscode"])
def test_formats_without_comments_are_plain_json(name: str) -> None:
    json.loads(APPS[name].render(ENTRIES).text)


@pytest.mark.parametrize("name", ["opencode", "kilo", "aider", "zed"])
def test_json_with_comments_says_where_values_come_from(name: str) -> None:
    text = APPS[name].render(ENTRIES).text
    assert parse_json(text)
    assert "/* lmstrix: 32768 tokens passed full on 2026-03-01, lmstudio 0.4.1 */" in text


@pytest.mark.parametrize("name", ["continue", "litellm", "llama-swap"])
def test_yaml_says_where_values_come_from(name: str) -> None:
    text = APPS[name].render(ENTRIES).text
    assert yaml.safe_load(text)
    assert "  # lmstrix: 32768 tokens passed full on 2026-03-01, lmstudio 0.4.1\n" in text


def test_codex_settings_are_toml() -> None:
    assert tomllib.loads(APPS["codex"].render([LM_STUDIO]).text) == {
        "model": "qwen3-8b",
        "model_context_window": 32768,
    }


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("json", [("json", None)]),
        ("json,zed:a,b.json", [("json", None), ("zed", "a,b.json")]),
        (r"zed:C:\a\b.json,json:D:\x", [("zed", r"C:\a\b.json"), ("json", r"D:\x")]),
        ("zed:a,json", [("zed", "a"), ("json", None)]),
    ],
)
def test_programs_and_paths_are_distinguished(
    text: str, targets: list[tuple[str, str | None]]
) -> None:
    assert parse_targets(text) == targets


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("emacs", "'emacs' is not a known program; choose from json, lmstudio, "),
        ("json,emacs:x", "'emacs' is not a known program"),
        ("json:", "'json:' needs a path"),
        ("roo:file", "'roo' has no file that can be merged into"),
        ("", "'' is not a known program"),
    ],
)
def test_unusable_targets_are_refused(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        parse_targets(text)
