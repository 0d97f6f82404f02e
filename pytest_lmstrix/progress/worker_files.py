"""The activities of pytest-xdist workers, passed to the controller through a file each.

pytest-xdist itself transfers only test reports, and only after each test.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from pytest_lmstrix.progress.status import Activity
from pytest_lmstrix.system.atomic_write import atomic_write

FOLDER = "lmstrix_live"
"""In the input of a worker: the folder of these files."""


class StatusFile:
    """A worker's file, for writing."""

    def __init__(self, folder: str, worker: str) -> None:
        self._path = Path(folder, worker)

    def write(self, status: Activity | None) -> None:
        """Replace the file by `status`, best effort; `None` removes it."""
        with suppress(OSError):
            if status is None:
                self._path.unlink(missing_ok=True)
                return
            atomic_write(self._path, msgspec.json.encode(status), durable=False)


class StatusFiles:
    """All workers' files, for the controller."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="pytest-lmstrix-")

    def statuses(self) -> list[Activity]:
        """Return the current activities, sorted by worker."""
        found = []
        with suppress(OSError):
            for path in sorted(Path(self.folder).glob("gw*")):
                with suppress(OSError, msgspec.DecodeError):
                    found.append(msgspec.json.decode(path.read_bytes(), type=Activity))
        return found

    def remove(self, worker: str) -> None:
        """Remove the file of a worker that has exited, perhaps by a crash."""
        with suppress(OSError):
            Path(self.folder, worker).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove all files and their folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
