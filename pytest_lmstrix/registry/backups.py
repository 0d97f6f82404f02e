"""Backups of the registry: exact copies in `backups/` beside it.

The newest ten are kept. An older one is deleted only if the next one or the newest one begins with
it: since a registry is append-only, any other holds data that was lost later.
"""

from __future__ import annotations

import contextlib
import os
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

from pytest_lmstrix.registry.files import (
    RegistryError,
    next_stamped,
    open_to_read,
    registry_error,
    stamped,
    write_durably,
)
from pytest_lmstrix.registry.lines import Flaw, Scan
from pytest_lmstrix.system.atomic_write import sync_folder

KEPT = 10
"""Newest backups of a registry that are kept in any case."""


class Contents(Struct, frozen=True, kw_only=True):
    """Counts of the lines of a registry file."""

    results: int
    """Intact lines, including those of a newer schema."""
    damaged: int

    @property
    def intact(self) -> bool:
        """Whether it has results, and no line is damaged."""
        return self.results > 0 and not self.damaged


class Restored(Struct, frozen=True, kw_only=True):
    """The outcome of a restore."""

    backup: Path
    contents: Contents
    replaced: Path | None
    """The file that keeps the previous registry; `None` when there was none."""


def backups(path: Path) -> list[Path]:
    """Return the backups of the registry `path`, oldest first."""
    return stamped(path.parent / "backups", f"{path.stem}-", path.suffix)


def contents(path: Path) -> Contents:
    """Count the lines of the registry or backup `path`.

    Raises:
        RegistryError: It cannot be read.
    """
    results = damaged = 0
    try:
        with open_to_read(path) as stream:
            for item in Scan(stream):
                if not isinstance(item, Flaw) or item.kind == "newer":
                    results += 1
                elif item.kind == "damaged":
                    damaged += 1
    except OSError as error:
        raise registry_error(path, "cannot be read", error) from error
    return Contents(results=results, damaged=damaged)


def make_backup(path: Path) -> Path | None:
    """Copy the registry `path`; the caller holds its lock.

    Returns the backup, or `None` when there is nothing to copy.

    Raises:
        RegistryError: It cannot be read or the copy cannot be written.
    """
    try:
        if not path.stat().st_size:
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise registry_error(path, "cannot be read", error) from error
    backup = next_stamped(path.parent / "backups", f"{path.stem}-", path.suffix)
    write_durably(backup, path)
    _prune(path)
    return backup


def _prune(path: Path) -> None:
    known = backups(path)
    for older, following in pairwise(known[: 1 - KEPT]):
        # One that is unreadable, or open on Windows, is left to the next session.
        with contextlib.suppress(OSError, RegistryError):
            if any(_begins_with(newer, older) for newer in (following, known[-1])):
                older.unlink()


def _begins_with(newer: Path, older: Path) -> bool:
    """Return whether `newer` begins with the bytes of `older`, so that nothing was lost."""
    if newer.stat().st_size < older.stat().st_size:
        return False
    with open_to_read(older) as old, open_to_read(newer) as new:
        while chunk := old.read(1 << 20):
            if new.read(len(chunk)) != chunk:
                return False
    return True


def choose_backup(path: Path, backup: Path | str | None) -> tuple[Path, Contents]:
    """Return the backup of the registry `path` to restore, and its contents; change nothing.

    `backup` is a file, or the name of one of the backups. `None` selects the newest one with
    results and no damaged line, else the newest one with any result.

    Raises:
        RegistryError: There is no such backup, or it has no result.
    """
    if backup is not None:
        places = (path.parent / "backups" / backup, Path(backup))
        try:
            source = next((place for place in places if place.exists()), None)
        except OSError as error:
            raise registry_error(places[0], "cannot be read", error) from error
        if source is None:
            known = ", ".join(one.name for one in reversed(backups(path))) or "none"
            raise RegistryError(f"{backup}: backup not found; available: {known}")
        found = contents(source)
        if not found.results:
            raise RegistryError(f"{source}: has no readable result; choose another backup")
        return source, found
    readable: list[tuple[Path, Contents]] = []
    for one in reversed(backups(path)):
        with contextlib.suppress(RegistryError):
            readable.append((one, contents(one)))
            if readable[-1][1].intact:
                return readable[-1]
    for one, found in readable:
        if found.results:
            return one, found
    raise RegistryError(f"{path.parent / 'backups'}: has no readable backup")


def restore_backup(path: Path, source: Path, found: Contents) -> Restored:
    """Replace the registry `path` by the backup `source`, which `choose_backup` returned.

    The caller holds the lock of the registry.

    Raises:
        RegistryError: It cannot be replaced.
    """
    fresh = next_stamped(path.parent, f"{path.stem}.restored-", path.suffix)
    write_durably(fresh, source)
    kept = next_stamped(path.parent, f"{path.stem}.replaced-", path.suffix)
    try:
        # Linked or renamed, not copied: it may be unreadable.
        with contextlib.suppress(FileNotFoundError):
            _keep(path, kept)
        fresh.replace(path)
    except OSError as error:
        raise registry_error(path, f"cannot be replaced by {fresh.name}", error) from error
    sync_folder(path.parent)
    return Restored(backup=source, contents=found, replaced=kept if kept.exists() else None)


def _keep(path: Path, kept: Path) -> None:
    try:
        os.link(path, kept)  # so that `path` always exists, even if this process is killed
    except FileNotFoundError:
        raise
    except OSError:  # it is a folder, or the disk has no links
        path.rename(kept)
