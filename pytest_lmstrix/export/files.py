"""Merges into a file of another program: planned, shown as a diff, then written atomically."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from pytest_lmstrix.core.sanitize import clean
from pytest_lmstrix.export.document import DocumentError, lines_of
from pytest_lmstrix.system.atomic_write import atomic_write
from pytest_lmstrix.weights.source import redact

MOST_FILE_BYTES = 20_000_000
_BOM = "\ufeff"
_SECRET = re.compile(
    r"""
    (
        (?: api[_-]?key | token | secret | passw(?:or)?d | authorization ) ["']? \s* [:=] \s*
        | --api-key \s+
    )
    (?! ["']? (?: os\.environ | [{$] | \d+\b | (?:true|false|null)\b ) )
    (?: "(?:[^"\\]|\\.)*" | '[^']*' | (?: (?:bearer|basic)\s+ )? [^\s,;}\]"']+ )
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""The value of a key that holds a secret; a number, or the name of a variable, is none."""


class ExportError(ValueError):
    """A file cannot be merged into; it is untouched."""


class FilePlan(Struct, frozen=True, kw_only=True):
    """What a file will contain."""

    path: Path
    """As given."""
    target: Path
    """Where links lead to."""
    old: bytes | None
    """`None` if the file does not exist yet."""
    new: bytes

    @property
    def changes(self) -> bool:
        return self.new != (self.old or b"")


def plan_file(
    path: Path, edit: Callable[[str], str], *, bom: bool = True, inside: Path | None = None
) -> FilePlan:
    """Return the new content of `path`; `edit` changes its text, which is empty without a file.

    A byte order mark is kept, or refused unless `bom`. The file must be below the folder
    `inside`, if given, in which missing folders are made.

    Raises:
        ExportError: The file cannot be read, is not writable, or `edit` does not understand it.
    """
    try:
        target = Path(os.path.realpath(path, strict=path.is_symlink()))
        if inside is not None:
            _check_inside(target, inside)
        old = _read(target, new_folders=inside is not None)
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror or error}") from None
    try:
        text = (old or b"").decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = f"0x{error.object[error.start]:02x}"
        raise ExportError(f"{path}:{line}: must be UTF-8, got byte {byte}") from None
    mark = _BOM if text.startswith(_BOM) else ""
    if mark and not bom:
        raise ExportError(f"{path}: begins with a byte order mark, which the program cannot read")
    try:
        new = edit(text[len(mark) :])
    except DocumentError as error:
        raise ExportError(f"{path}: {error}; nothing was changed") from None
    except RecursionError:
        raise ExportError(f"{path}: refers to itself; nothing was changed") from None
    if new == text[len(mark) :]:
        return FilePlan(path=path, target=target, old=old, new=old or b"")
    return FilePlan(path=path, target=target, old=old, new=(mark + new).encode())


def _check_inside(target: Path, folder: Path) -> None:
    if not (folder / ".internal").is_dir():
        raise OSError(f"{folder} is not the home folder of LM Studio: it has no folder .internal")
    if not target.is_relative_to(os.path.realpath(folder)):
        raise OSError(f"leads out of {folder}")


def _read(target: Path, *, new_folders: bool) -> bytes | None:
    try:
        status = target.stat()
    except FileNotFoundError:
        if not new_folders and not target.parent.is_dir():
            raise OSError(f"there is no folder {target.parent}") from None
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError("is not a file")
    if status.st_size > MOST_FILE_BYTES:
        raise OSError(f"is larger than {MOST_FILE_BYTES:,} bytes")
    # As root, the system allows everything.
    if not status.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) or not os.access(
        target, os.W_OK
    ):
        raise OSError("is read-only")
    return target.read_bytes()


def diff(plan: FilePlan) -> Iterator[str]:
    """Yield the lines of a unified diff, harmless in a terminal and without secrets."""
    old, new = ((plan.old or b"").decode(), plan.new.decode())
    before = "/dev/null" if plan.old is None else str(plan.path)
    lines = difflib.unified_diff(lines_of(old), lines_of(new), before, str(plan.path), n=2)
    for line in lines:
        yield clean(redact(_SECRET.sub(r"\1***", line.rstrip("\r\n"))))


def write(plan: FilePlan) -> Path | None:
    """Write the file, and return the backup of its old content.

    Raises:
        ExportError: It cannot be written, or has changed since it was planned.
    """

    def check_unchanged() -> None:
        if (plan.target.read_bytes() if plan.target.exists() else None) != plan.old:
            raise ExportError(f"{plan.path}: was changed by another program meanwhile; try again")

    try:
        check_unchanged()
        plan.target.parent.mkdir(parents=True, exist_ok=True)
        backup = _make_backup(plan)
        atomic_write(plan.target, plan.new, before_replace=check_unchanged)
    except OSError as error:
        raise ExportError(f"{plan.path}: cannot be written: {error.strerror or error}") from None
    return backup


def _make_backup(plan: FilePlan) -> Path | None:
    if plan.old is None:
        return None
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    backup = plan.target.with_name(f"{plan.target.name}.before-lmstrix-{now}")
    mode = stat.S_IMODE(plan.target.stat().st_mode)
    atomic_write(backup, plan.old, mode=mode)
    shutil.copystat(plan.target, backup)
    return backup
