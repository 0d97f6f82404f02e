"""Public projects' own test suites pass as they did before this plugin was installed.

`LMSTRIX_TEST_SUITES` names a folder of unpacked source distributions. Each is run with the plugin
and without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

SUITES = {"click": "tests", "iniconfig": "testing"}
"""Project -> the folder of its tests."""

NEEDED = {"lmstrix", "xdist", "xdist.looponfail", "html", "metadata"}


def sources(name: str) -> Path:
    folder = os.environ.get("LMSTRIX_TEST_SUITES")
    if folder is None:
        pytest.skip("public suites: LMSTRIX_TEST_SUITES names the folder of their sources")
    (found,) = Path(folder).glob(f"{name}-*/")
    return found


def files(path: Path) -> set[str]:
    caches = ("__pycache__", ".pytest_cache")
    return {str(each) for each in path.rglob("*") if not any(c in str(each) for c in caches)}


@pytest.mark.parametrize("name", SUITES)
def test_the_plugin_is_inert(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    shutil.copytree(sources(name), root)

    installed = {entry.name for entry in entry_points(group="pytest11")}
    blocked = [f"-pno:{each}" for each in sorted(installed - NEEDED)]

    def run(*args: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", *blocked, *args, SUITES[name]]
        environment = {**os.environ, "PYTHONPATH": str(root / "src"), "COLUMNS": "80"}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == pytest.ExitCode.OK, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout.splitlines()[-1].rpartition(" in ")[0].strip("= ")

    without = run("-pno:lmstrix")
    left = files(root)
    assert run() == without, "the same counts, and no warning more"
    assert files(root) == left, "no file of ours"
