"""Files in the folder of reports: the plugin's own are replaced, all others are left alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from pytest_lmstrix.reports.summary import SUMMARY_HEADING, SUMMARY_MARK

MARK = '<section id="lmstrix">'
"""Every report.html of the plugin has it."""


def unwritable(path: Path) -> str:
    """Return why the file `path` cannot be written, or an empty text; nothing is created."""
    if path.is_dir():
        return f"{path.name} is a folder"
    if path.exists():
        return "" if os.access(path, os.W_OK) else "Permission denied"
    folder = next(each for each in path.parents if each.exists())
    if not folder.is_dir():
        return f"{folder.name} is not a folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"


def foreign(path: Path, is_own: Callable[[bytes], bool]) -> bool:
    """Whether `path` is a file that something else wrote."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    return bool(data) and not is_own(data)


FOREIGN = "the file there was not written by pytest-lmstrix"


def replace_file(path: Path, data: bytes, is_own: Callable[[bytes], bool]) -> None:
    """Write `data` to `path` whole or not at all.

    Raises:
        OSError: It cannot be written, or the file there is not the plugin's own.
    """
    if foreign(path, is_own):
        raise OSError(FOREIGN)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_of_run_json(data: bytes) -> bool:
    """Whether `data` is a run.json of the plugin."""
    try:
        body = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return False
    return isinstance(body, dict) and {"schema", "run", "cases"} <= body.keys()


def is_summary(data: bytes) -> bool:
    """Whether `data` is a summary.md of the plugin, also of before it had a mark."""
    return data.startswith((SUMMARY_MARK.encode(), SUMMARY_HEADING.encode()))


def is_report_html(data: bytes) -> bool:
    """Whether `data` is a report.html of the plugin."""
    return MARK.encode() in data
