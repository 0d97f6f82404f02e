"""Memory estimates of earlier runs, in a file beside the registry: a cache that may be deleted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

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
_Value = TypeVar("_Value")


class _Contents(Struct):
    schema: int = ESTIMATES_SCHEMA
    estimates: dict[str, Needs] = {}
    headers: dict[str, str] = {}
    """What identifies the files of a model, as `files_key` -> the hash of their headers."""


class EstimateCache:
    """Memory estimates by what they depend on."""

    def __init__(self, registry: Path) -> None:
        """`registry` is the file of the results."""
        self._path = registry.with_name(FILE_NAME)
        self._contents: _Contents | None = None

    def __bool__(self) -> bool:
        return bool(self._known().estimates)

    def get(self, key: str) -> Needs | None:
        return self._known().estimates.get(key)

    def header(self, files: str) -> str | None:
        """Return the hash of the headers of `files`, as by `files_key`."""
        return self._known().headers.get(files)

    def add(self, key: str, needs: Sequence[DeviceNeed], *, headers: Mapping[str, str]) -> None:
        """Keep an estimate and hashes of headers, beside those that other processes have added.

        Raises:
            OSError: The file cannot be written, or stays locked.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._path}.lock", timeout=_LOCK_SECONDS):
            known = self._read()
            known.estimates.pop(key, None)
            contents = _Contents(
                estimates=_newest({**known.estimates, key: tuple(needs)}),
                headers=_newest({**known.headers, **headers}),
            )
            atomic_write(self._path, msgspec.json.encode(contents), durable=False)
        self._contents = contents

    def _known(self) -> _Contents:
        if self._contents is None:
            self._contents = self._read()
        return self._contents

    def _read(self) -> _Contents:
        try:
            contents = msgspec.json.decode(self._path.read_bytes(), type=_Contents)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return _Contents()  # missing, or of a version that wrote something else
        return contents if contents.schema == ESTIMATES_SCHEMA else _Contents()


def _newest(entries: dict[str, _Value]) -> dict[str, _Value]:
    return dict(list(entries.items())[-_MOST_ESTIMATES:])


def files_key(files: Iterable[Path]) -> str:
    """Return the paths, sizes and times of `files` as text: the same as long as they are.

    Raises:
        OSError: One cannot be read.
    """
    found = [(str(path.absolute()), path.stat()) for path in files]
    return msgspec.json.encode(
        [(path, stat.st_size, stat.st_mtime_ns) for path, stat in found]
    ).decode()


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
