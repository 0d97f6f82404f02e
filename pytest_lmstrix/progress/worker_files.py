"""What workers of pytest-xdist are doing, told to the controller through a file each.

pytest-xdist carries reports of tests only, and those come when all is over.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from pytest_lmstrix.progress.status import Activity
from pytest_lmstrix.system.atomic_write import atomic_write


class Relay:
    """The side of a worker."""

    def __init__(self, folder: str, worker: str) -> None:
        self._path = Path(folder, worker)

    def tell(self, status: Activity | None) -> None:
        """What is done now; what cannot be told is not worth a failure."""
        with suppress(OSError):
            if status is None:
                self._path.unlink(missing_ok=True)
                return
            atomic_write(self._path, msgspec.json.encode(status), durable=False)


class Relays:
    """The side of the controller."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="pytest-lmstrix-")

    def statuses(self) -> list[Activity]:
        """By worker."""
        found = []
        with suppress(OSError):
            for path in sorted(Path(self.folder).glob("gw*")):
                with suppress(OSError, msgspec.DecodeError):
                    found.append(msgspec.json.decode(path.read_bytes(), type=Activity))
        return found

    def forget(self, worker: str) -> None:
        """It is gone, perhaps without a word."""
        with suppress(OSError):
            Path(self.folder, worker).unlink(missing_ok=True)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
