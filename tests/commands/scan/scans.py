"""Runs of `--lmstrix-scan`, and what they write."""

from __future__ import annotations

from typing import Any

import pytest_lmstrix.commands.run
import pytest_lmstrix.engines.lmstudio.engine  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.manifest.read import read_manifest
from tests.end_to_end.project import Project
from tests.standin.lmstudio import LmStudioServer, StandInModel

MODELS = (
    StandInModel(key="org/small", size_bytes=1_000_000_000, quantization="Q4_K_M", vision=True),
    StandInModel(key="big@q8_0", max_context_length=32_768, trained_for_tool_use=True),
    StandInModel(key="vectors", type="embedding"),
)


def scan(project: Project, *servers: LmStudioServer, args: tuple[str, ...] = ()) -> Any:
    hosts = [f"--lmstrix-host={server.host}" for server in servers]
    return project.run("--lmstrix-scan", *hosts, *args)


def found(project: Project) -> dict[str, Model]:
    return {model.id: model for model in read_manifest(project.path / "models.yaml")}
