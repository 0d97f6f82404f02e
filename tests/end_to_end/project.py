"""Projects with a manifest and a fake engine, and the files of their runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

# Imported once here: pytester discards the modules imported by each in-process run.
import pytest_lmstrix.manifest.read
import pytest_lmstrix.manifest.recognize
import pytest_lmstrix.reports.page.plots
import pytest_lmstrix.reports.writer  # noqa: F401
import tests.standin.fake_engine  # noqa: F401
from pytest_lmstrix.core.types import Result

CONFTEST = """
from pathlib import Path
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio.models.behaviours import *
from tests.standin.lmstudio.models.model import StandInModel

ROOT = Path(__file__).parent

def pytest_lmstrix_engines(config):
    return [FakeEngine(({models}), log=ROOT / "engine.log")]
"""


class Project:
    """A folder with `models.yaml`, an engine called fake, and pytest."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.started: list[subprocess.Popen[bytes]] = []
        """Stopped at the end of the test in any case."""
        self.engine(tiny="")
        self.manifest("[{id: tiny, contexts: [512, 1024]}]")

    def engine(self, **models: str) -> None:
        """Give the engine a model of each name, with these arguments of `StandInModel`."""
        made = "".join(f"StandInModel(key={key!r}, {more})," for key, more in models.items())
        self.pytester.makeconftest(CONFTEST.format(models=made))

    def manifest(self, models: str) -> None:
        self.pytester.makefile(".yaml", models=f"defaults: {{engine: fake}}\nmodels: {models}\n")

    def run(self, *args: str) -> pytest.RunResult:
        return self.pytester.runpytest("-p", "no:hypothesispytest", *args)

    def run_apart(self, *args: str) -> pytest.RunResult:
        """In a process of its own."""
        return self.pytester.runpytest_subprocess(*args)

    def ids(self, *args: str) -> list[str]:
        """Return the node ids that a run would test, in order."""
        result = self.run(*args, "--collect-only", "-q")
        return [line for line in result.outlines if "::" in line and not line.startswith("ERROR")]

    @property
    def results(self) -> list[Result]:
        lines = Path(self.path, "reports", "registry.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Result) for line in lines]

    @property
    def engine_log(self) -> list[str]:
        log = Path(self.path, "engine.log")
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []
