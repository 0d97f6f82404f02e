"""Notes of what this plugin has loaded in servers that keep no owner, for a sweep after a kill."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct
from platformdirs import user_state_path

from pytest_lmstrix.system.atomic_write import atomic_write

SPARE_SECONDS = 60.0
"""A note is trusted this much longer than the server keeps an idle model."""


class LoadNote(Struct, frozen=True, kw_only=True):
    """A model that the process `owner` has loaded on `host`."""

    host: str
    model: str
    context_length: int
    """Tokens: requested, and once it is loaded those granted."""
    owner: str
    """See `owner_token`."""
    ttl_seconds: int
    """After so many idle seconds the server unloads it by itself; 0 for never."""
    instance: str = ""
    """Identifies this load on the server, where it tells one from the next."""


class LoadNotes:
    """The notes about one host, a file each; without a usable folder there are none."""

    def __init__(self, host: str, folder: Path | None = None) -> None:
        self._folder = folder or user_state_path("pytest-lmstrix") / "loads"
        self._prefix = hashlib.sha256(host.encode()).hexdigest()[:16]

    def write(self, note: LoadNote, path: Path | None = None) -> Path:
        """Write `note` to `path`, by default a new file, and return its path."""
        path = path or self._folder / f"{self._prefix}-{secrets.token_hex(8)}.json"
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic_write(path, msgspec.json.encode(note), mode=0o600, durable=False)
        return path

    def refresh(self, path: Path) -> None:
        """Record that its model has been used just now."""
        with suppress(OSError):
            path.touch()

    def remove(self, path: Path) -> None:
        """Remove a note; idempotent."""
        with suppress(OSError):
            path.unlink(missing_ok=True)

    def all(self) -> Iterator[tuple[Path, LoadNote]]:
        """Yield the notes of this host; damaged ones are removed."""
        for path in sorted(self._folder.glob(f"{self._prefix}-*.json")):
            try:
                yield path, msgspec.json.decode(path.read_bytes(), type=LoadNote)
            except msgspec.MsgspecError:
                self.remove(path)
            except OSError:
                continue

    def sweep(
        self, is_dead: Callable[[str], bool], unload: Callable[[Path, LoadNote], bool]
    ) -> list[str]:
        """Unload what owners have loaded for whom `is_dead` is true, and remove their notes.

        `unload` returns whether there was anything left to unload.

        Returns the names of the models that were.
        """
        swept = []
        for path, note in list(self.all()):
            if is_dead(note.owner):
                if unload(path, note):
                    swept.append(note.model)
                self.remove(path)
        return swept

    def may_hold(self, path: Path, note: LoadNote) -> bool:
        """Whether the server may still keep the model because of its owner's last request."""
        with suppress(OSError):
            return time.time() - path.stat().st_mtime <= note.ttl_seconds + SPARE_SECONDS
        return False
