"""Memory estimates of earlier runs, in a file beside the registry: a cache that may be deleted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from filelock import FileLock
from msgspec import Struct

from pytest_lmstrix.core.memory import DeviceNeed, Needs
from pytest_lmstrix.core.types import LoadSettings
from pytest_lmstrix.system.atomic_write import atomic_write

ESTIMATES_SCHEMA = 1
FILE_NAME = "memory-estimates.json"
_MOST_ESTIMATES = 20_000
"""The oldest beyond these are dropped: 5 MB."""
_LOCK_SECONDS = 30.0


class _Contents(Struct):
    schema: int = ESTIMATES_SCHEMA
    estimates: dict[str, Needs] = {}


class EstimateCache:
    """Memory estimates by what they depend on."""

    def __init__(self, registry: Path) -> None:
        """`registry` is the file of the results."""
        self._path = registry.with_name(FILE_NAME)
        self._known: dict[str, Needs] | None = None

    def get(self, key: str) -> Needs | None:
        if self._known is None:
            self._known = self._read()
        return self._known.get(key)

    def add(self, key: str, needs: Sequence[DeviceNeed]) -> None:
        """Keep an estimate, beside those that other processes have added.

        Raises:
            OSError: The file cannot be written, or stays locked.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._path}.lock", timeout=_LOCK_SECONDS):
            known = self._read()
            known.pop(key, None)
            known[key] = tuple(needs)
            kept = dict(list(known.items())[-_MOST_ESTIMATES:])
            atomic_write(self._path, msgspec.json.encode(_Contents(estimates=kept)), durable=False)
        self._known = kept

    def _read(self) -> dict[str, Needs]:
        try:
            contents = msgspec.json.decode(self._path.read_bytes(), type=_Contents)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}  # missing, or of a version that wrote something else
        return contents.estimates if contents.schema == ESTIMATES_SCHEMA else {}


def estimate_key(
    *,
    header: str,
    load: LoadSettings,
    context_length: int,
    engine_version: str,
    machine: str,
) -> str:
    """Return all that an estimate depends on as text; `header` is a hash of the file's header."""
    return msgspec.json.encode(
        [header, engine_version, machine, context_length, load], order="deterministic"
    ).decode()
