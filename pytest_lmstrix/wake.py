"""Decides whether a run is about models. Nothing heavy is imported unless it may be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_lmstrix import options
from pytest_lmstrix.core.checks import CHECKS

PLAN = "lmstrix_plan"
"""In the input of each pytest-xdist worker whose controller is awake."""


class Decision(NamedTuple):
    """Whether the plugin acts in this run, and if not, why, where that may be unexpected."""

    awake: bool
    note: str = ""


def decide(config: pytest.Config) -> Decision:
    """Decide whether the plugin acts in this run.

    It does when asked for, and when the manifest or a node id in it is given. `-m` activates it
    when the expression depends on a marker of the plugin and the manifest is collected. The file
    must look like a manifest: other projects have markers and files of these names.
    """
    worker_input = getattr(config, "workerinput", None)
    if worker_input is not None:
        return Decision(PLAN in worker_input)
    if config.option.help:
        return Decision(False)
    if options.asked_for(config):
        return Decision(True)
    manifest = options.manifest_path(config)
    if not (names_manifest(config, manifest) or _selects_models(config, manifest)):
        return Decision(False, other_manifest(config, manifest))
    if not manifest.is_file():
        return Decision(False)
    from pytest_lmstrix.manifest.recognize import is_manifest

    if is_manifest(manifest):
        return Decision(True)
    return Decision(False, f"{manifest.name} is not a list of models, so none is tested")


def _selects_models(config: pytest.Config, manifest: Path) -> bool:
    expression: str = config.option.markexpr
    return (
        bool(expression)
        and any(options.selects(expression, marker) for marker in (*CHECKS, "lmstrix"))
        and (not paths_given(config) or collects_manifest(config, manifest))
    )


def paths_given(config: pytest.Config) -> bool:
    """Whether paths or node ids are on the command line."""
    return config.args_source is pytest.Config.ArgsSource.ARGS


def names_manifest(config: pytest.Config, manifest: Path, *, inside: bool = False) -> bool:
    """Whether an argument is the manifest or a node id in it; the latter alone if `inside`."""
    return any(
        is_same_file(path_of(config, arg), manifest)
        for arg in config.args
        if "::" in arg or not inside
    )


def other_manifest(config: pytest.Config, manifest: Path) -> str:
    """Return a remark on an argument that is a manifest, but not `manifest`; empty without one."""
    for arg in config.args:
        name, path = arg.partition("::")[0], path_of(config, arg)
        if path.suffix in (".yaml", ".yml") and not is_same_file(path, manifest):
            from pytest_lmstrix.manifest.recognize import is_manifest

            if path.is_file() and is_manifest(path):
                return f"{name} is not the manifest of this run: add --lmstrix-models={name}"
    return ""


def collects_manifest(config: pytest.Config, manifest: Path) -> bool:
    """Whether an argument is the manifest, a node id in it, or a folder around it."""
    paths = {path_of(config, arg) for arg in config.args}
    folders = paths | {path.resolve() for path in paths}
    around = {*manifest.parents, *manifest.resolve().parents}
    return not folders.isdisjoint(around) or names_manifest(config, manifest)


def path_of(config: pytest.Config, arg: str) -> Path:
    """The absolute path in an argument, which may be a node id."""
    path = config.invocation_params.dir / arg.partition("::")[0]
    return Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` follows links


def is_same_file(path: Path, manifest: Path) -> bool:
    """Whether both are the same file, also through a link or another name of a folder."""
    return path == manifest or (path.name == manifest.name and path.resolve() == manifest.resolve())
