"""Exported settings, read by the programs themselves.

`LMSTRIX_TEST_APPS` names a folder with a virtual environment for each of them: `litellm` and
`aider`, whose dependencies exclude ours.
"""

from __future__ import annotations

import json
import os
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
