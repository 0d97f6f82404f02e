"""The table of programs: how to print a setting for each, and how to merge it into its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_lmstrix.export.app import App
from pytest_lmstrix.export.entries import Exported
from pytest_lmstrix.export.json_apps import JSON_APPS
from pytest_lmstrix.export.line_apps import LINE_APPS
from pytest_lmstrix.export.yaml_apps import YAML_APPS

APPS: dict[str, App] = {**JSON_APPS, **YAML_APPS, **LINE_APPS}
"""The name for `--lmstrix-export` -> the program."""


def parse_targets(text: str) -> list[tuple[str, str | None]]:
    """Return the programs and files of `APP[:PATH][,APP[:PATH]...]`; a path may have commas.

    Raises:
        ValueError: A name is not that of a program, or a path is empty.
    """
    found: list[tuple[str, str | None]] = []
    for part in text.split(","):
        name, colon, path = part.partition(":")
        if name.strip() in APPS:
            found.append((name.strip(), path if colon else None))
        elif found and found[-1][1] is not None:
            found[-1] = (found[-1][0], f"{found[-1][1]},{part}")
        else:
            raise ValueError(f"'{name}' is not a known program; choose from {', '.join(APPS)}")
    for name, target in found:
        if target is not None and not target.strip():
            raise ValueError(f"'{name}:' needs a path")
        if target is not None and APPS[name].merge is None:
            raise ValueError(f"'{name}' has no file that can be merged into; leave out the path")
    return found


def files_of(
    app: App, path: Path, entries: Sequence[Exported]
) -> list[tuple[Path, list[Exported]]]:
    """Return the files to merge into, each with its models."""
    if app.file_of is None:
        return [(path, list(entries))]
    files = ((app.file_of(path, entry), entry) for entry in entries)
    return [(file, [entry]) for file, entry in files if file is not None]
