"""Writes reports/index.html, and keeps run.json of the newest runs in reports/runs/."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.reports.files import is_nights_page, is_of_run_json, replace_file
from pytest_lmstrix.reports.nights.board import board_of
from pytest_lmstrix.reports.nights.page import page
from pytest_lmstrix.reports.run_json import RunReport, encode_run

INDEX = "index.html"
RUNS = "runs"
MOST_RUNS = 50
"""Runs whose run.json is kept, the newest ones."""
_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ-[0-9a-zA-Z_-]+\.json")
_OTHERS = ("report.html", "summary.md", "run.json")


def write_index(
    registry: Registry, reports: Path, *, made: datetime, written: Iterable[str] = ()
) -> Path:
    """Write the page of the nights in `registry`, and return its path.

    It links to the reports of the last run: to those that are there, and those of `written`, which
    will be.

    Raises:
        RegistryError: The registry cannot be read.
        OSError: The page cannot be written, or another program wrote the existing file.
    """
    links = [name for name in _OTHERS if name in written or (reports / name).is_file()]
    text = page(board_of(registry), made=made, links=links)
    replace_file(reports / INDEX, text.encode(), is_nights_page)
    return reports / INDEX


def keep_run(run: RunReport, reports: Path, *, most: int = MOST_RUNS) -> Path:
    """Write `run` to a file of its own, delete those of the oldest runs, and return its path.

    Files with other names or other contents are neither deleted nor replaced.

    Raises:
        OSError: The file cannot be written, or another program wrote the existing one.
    """
    name = f"{run.started:%Y-%m-%dT%H-%M-%SZ}-{re.sub(r'[^0-9a-zA-Z_-]', '_', run.run)}.json"
    path = reports / RUNS / name
    replace_file(path, encode_run(run), is_of_run_json)
    kept = sorted((each for each in path.parent.iterdir() if _NAME.fullmatch(each.name)),
                  key=lambda each: each.name, reverse=True)  # fmt: skip
    for old in kept[most:]:
        if old.is_file() and is_of_run_json(old.read_bytes()):
            old.unlink(missing_ok=True)
    return path
