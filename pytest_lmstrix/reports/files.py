"""Files in the reports folder: only files that the plugin wrote are replaced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from pytest_lmstrix.reports.summary import SUMMARY_HEADING, SUMMARY_MARK

MARK = '<section id="lmstrix">'
"""Identifies a report.html of the plugin."""
NIGHTS_MARK = "<!-- pytest-lmstrix nights -->"
"""Identifies an index.html of the plugin."""


def unwritable_reason(path: Path) -> str:
    """Return why `path` cannot be written, or an empty text; has no side effects."""
    if path.is_dir():
        return f"{path.name} is a folder"
    if path.exists():
        return "" if os.access(path, os.W_OK) else "Permission denied"
    folder = next(each for each in path.parents if each.exists())
    if not folder.is_dir():
        return f"{folder.name} is not a folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"


def is_foreign(path: Path, is_own: Callable[[bytes], bool]) -> bool:
    """Return whether `path` is a file that another program wrote."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    return bool(data) and not is_own(data)


FOREIGN = "the file there was not written by pytest-lmstrix"


def replace_file(path: Path, data: bytes, is_own: Callable[[bytes], bool]) -> None:
    """Replace `path` by `data` atomically.

    Raises:
        OSError: It cannot be written, or the existing file is not the plugin's own.
    """
    if is_foreign(path, is_own):
        raise OSError(FOREIGN)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_of_run_json(data: bytes) -> bool:
    """Return whether `data` is a run.json of the plugin."""
    try:
        body = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return False
    return isinstance(body, dict) and {"schema", "run", "cases"} <= body.keys()


def is_summary(data: bytes) -> bool:
    """Return whether `data` is a summary.md of the plugin; old ones have no mark."""
    return data.startswith((SUMMARY_MARK.encode(), SUMMARY_HEADING.encode()))


def is_report_html(data: bytes) -> bool:
    """Return whether `data` is a report.html of the plugin."""
    return MARK.encode() in data


def is_nights_page(data: bytes) -> bool:
    """Return whether `data` is an index.html of the plugin."""
    return NIGHTS_MARK.encode() in data[:1_000]
