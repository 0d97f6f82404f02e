"""Exported settings, read by the programs themselves.

`LMSTRIX_TEST_APPS` names a folder with a virtual environment for each of `litellm` and `aider`,
whose dependencies exclude ours, and a folder `npm` with the packages of the others.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_lmstrix.export.apps import APPS
from tests.export.results import exported

FOLDER = os.environ.get("LMSTRIX_TEST_APPS", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="needs LMSTRIX_TEST_APPS")

LITELLM = """
import json, sys, yaml, litellm
config = yaml.safe_load(open(sys.argv[1]))
router = litellm.Router(model_list=config["model_list"], **config["router_settings"])
info = router.get_router_model_info(
    deployment=router.model_list[0], received_model_name="qwen3-8b"
)
print(json.dumps({key: info[key] for key in ("max_input_tokens", "max_output_tokens")}))
try:
    router.completion("qwen3-8b", [{"role": "user", "content": "word " * 40_000}])
except litellm.ContextWindowExceededError:
    print(json.dumps("refused"))
"""
AIDER = """
import json, sys
from aider import models
models.register_litellm_models([sys.argv[1]])
info = models.Model("lm_studio/qwen3-8b").info
print(json.dumps({key: info[key] for key in ("max_input_tokens", "max_output_tokens")}))
"""


def answers(app: str, program: str, text: str, folder: Path) -> list[Any]:
    """Run `program` in the environment of `app` with a file, and return what it prints."""
    scripts = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    file = folder / "settings"
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [Path(FOLDER, app, scripts), "-c", program, file],
        cwd=folder,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] in ("{", '"')]


def test_litellm_reads_the_size_and_refuses_a_longer_prompt(tmp_path: Path) -> None:
    text = APPS["litellm"].render([exported()]).text
    sizes = {"max_input_tokens": 28_672, "max_output_tokens": 4096}
    assert answers("litellm", LITELLM, text, tmp_path) == [sizes, "refused"]


def test_aider_reads_the_size(tmp_path: Path) -> None:
    text = APPS["aider"].render([exported()]).text
    sizes = {"max_input_tokens": 28_672, "max_output_tokens": 4096}
    assert answers("aider", AIDER, text, tmp_path) == [sizes]


def merged(app: str, before: str) -> str:
    merge = APPS[app].merge
    assert merge is not None
    return merge(before, [exported()]).text


needs_npm = pytest.mark.skipif(
    not Path(FOLDER, "npm", "node_modules").is_dir(), reason="needs the packages of npm"
)


def npm(*command: str, folder: Path) -> Any:
    """Run `command` beside the packages of npm, and return what it prints."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder / ".config")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def parsed(app: str, text: str, folder: Path) -> Any:
    file = folder / "settings"
    file.write_text(text, encoding="utf-8")
    script = Path(__file__).with_name("parsers.mjs")
    return npm("node", str(script), app, str(file), folder=Path(FOLDER, "npm"))


@needs_npm
def test_continue_reads_the_size_without_a_warning(tmp_path: Path) -> None:
    text = (
        "name: mine\nversion: 1.0.0\nschema: v1\nmodels:\n  - name: Qwen\n    provider: lmstudio\n"
        "    model: qwen3-8b\n    defaultCompletionOptions: {contextLength: 5, maxTokens: 4096}\n"
    )
    sizes = {"contextLength": 32_768, "maxTokens": 4096}
    assert parsed("continue", merged("continue", text), tmp_path) == [[sizes], []]


@needs_npm
def test_the_schema_of_lm_studio_reads_the_size(tmp_path: Path) -> None:
    assert parsed("lmstudio", merged("lmstudio", ""), tmp_path) == 32_768


@needs_npm
def test_cline_reads_the_size(tmp_path: Path) -> None:
    settings = {"provider": "lmstudio", "model": "qwen3-8b", "contextWindow": 5}
    entry = {"settings": settings, "updatedAt": "2026-01-01T00:00:00Z", "tokenSource": "manual"}
    text = json.dumps({"version": 1, "modes": {}, "providers": {"lmstudio": entry}})
    assert parsed("cline", merged("cline", text), tmp_path) == [32_768]


@needs_npm
@pytest.mark.skipif(sys.platform != "linux", reason="needs the program for this system")
def test_opencode_reads_the_size(tmp_path: Path) -> None:
    text = APPS["opencode"].render([exported()]).text
    (tmp_path / "opencode.jsonc").write_text(text, encoding="utf-8")
    program = Path(FOLDER, "npm", "node_modules", "opencode-linux-x64", "bin", "opencode")
    found = npm(str(program), "debug", "config", folder=tmp_path)
    limit = {"context": 32_768, "output": 4096}
    assert found["provider"]["lmstudio"]["models"]["qwen3-8b"]["limit"] == limit


PRESETS = """
import ctypes, sys
import xllamacpp.xllamacpp as llama
ctypes.CDLL(llama.__file__, ctypes.RTLD_GLOBAL)
sys.exit(ctypes.CDLL(sys.argv[1]).print_presets(sys.argv[2].encode()))
"""


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("g++"), reason="needs g++")
def test_llama_server_reads_the_size_of_presets(tmp_path: Path) -> None:
    library, file = tmp_path / "presets.so", tmp_path / "presets.ini"
    source = Path(__file__).with_name("presets.cpp")
    # The wheel is built with the older strings of C++.
    options = ["-std=c++17", "-shared", "-fPIC", "-D_GLIBCXX_USE_CXX11_ABI=0"]
    subprocess.run(["g++", *options, source, "-o", library], check=True, timeout=120)

    def presets(text: str) -> subprocess.CompletedProcess[str]:
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-c", PRESETS, library, file]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    text = merged("llama-server", "version = 1\n[*]\nc = 7\n[qwen3-8b]\nmodel = /a.gguf\nc = 512\n")
    assert presets(text).stdout.splitlines()[-3:-1] == ["ctx-size = 32768", "model = /a.gguf"]
    assert presets(text.replace("model", "modle")).returncode == 1
