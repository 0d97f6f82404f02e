"""The plugin's own tests, and its models, are two different runs of this project."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A run of the models needs none of what the tests need."""
    if config.pluginmanager.has_plugin("lmstrix-collection"):
        return collection_path.is_relative_to(config.rootpath / "tests") or None
    return None
