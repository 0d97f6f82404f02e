"""Read a manifest from a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lmstrix.core.types import Model
from pytest_lmstrix.manifest.read import (
    ManifestError,
    parse_manifest,
)


def read(text: str | bytes, engine: str = "lmstudio") -> tuple[Model, ...]:
    data = text if isinstance(text, bytes) else text.encode()
    return parse_manifest(data, Path("models.yaml"), engine=engine).models


def problems(text: str | bytes) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        read(text)
    found = caught.value.problems
    assert all(problem.startswith("models.yaml:") for problem in found)
    assert not any("\n" in problem for problem in found)
    return found
