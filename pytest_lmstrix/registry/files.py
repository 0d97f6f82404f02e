"""Registry files on disk: every write is complete and durable, or is undone and raises an error.

The contents of the lines are not interpreted here.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor, unlock_descriptor

from pytest_lmstrix.system.atomic_write import atomic_write, sync_folder

_BINARY = getattr(os, "O_BINARY", 0)  # Windows translates line ends without it
_POLL_SECONDS = 0.01
_WINDOWS = sys.platform == "win32"


class RegistryError(Exception):
    """The registry cannot be read or written; the text names the file and the remedy."""


def lock_file(path: Path) -> Path:
    """Return the lock file of the registry `path`."""
    return path.with_name(path.name + ".lock")


class RegistryLock:
    """The lock of all writers of a registry; it is released when its owner dies.

    It is compatible with `filelock.FileLock` on the same file, without its bookkeeping, which
    takes as long as an fsync on a fast disk.
    """

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        self._path = lock_file(path)
        self._timeout = timeout_seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock, and create the folder of the registry; not reentrant.

        Raises:
            RegistryError: Another process holds it too long, or the folder cannot be written.
        """
        deadline = time.monotonic() + self._timeout
        try:
            while (descriptor := self._acquired()) is None:
                if time.monotonic() >= deadline:
                    raise RegistryError(
                        f"{self._path}: another process has held this lock for {self._timeout:g} s;"
                        " wait for it or end it; the lock is released when it exits"
                    )
                time.sleep(_POLL_SECONDS)
        except OSError as error:
            raise registry_error(self._path, "cannot be locked", error) from error
        try:
            yield
        finally:
            try:
                # Closing alone would leave the lock to a child forked in the meantime.
                with contextlib.suppress(OSError):
                    unlock_descriptor(descriptor)
            finally:  # even after Ctrl-C
                os.close(descriptor)

    def _acquired(self) -> int | None:
        try:
            descriptor = self._opened()
        except PermissionError:
            # On Windows, a file cannot be opened while a virus scanner reads it.
            if _WINDOWS and self._path.is_file() and os.access(self._path, os.W_OK):
                return None
            raise
        acquired = False
        try:
            # The lock of a file that was deleted in the meantime excludes no one.
            acquired = lock_descriptor(descriptor, blocking=False) and (
                os.fstat(descriptor).st_nlink > 0
            )
        finally:
            if not acquired:
                os.close(descriptor)
        return descriptor if acquired else None

    def _opened(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)


def registry_error(path: Path, what: str, error: OSError) -> RegistryError:
    """Return `error` as a `RegistryError` that names the file."""
    return RegistryError(f"{path}: {what}: {error.strerror or error}")


def open_to_read(path: Path) -> BinaryIO:
    """Open the registry or a backup, buffered for reading all of it.

    Raises:
        FileNotFoundError: It does not exist.
        RegistryError: It is not a regular file, or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would block
            raise _not_a_file(path)
        return path.open("rb", buffering=1 << 20)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise registry_error(path, "cannot be read", error) from error


def _not_a_file(path: Path) -> RegistryError:
    return RegistryError(f"{path}: is not a file; move it away or name another registry")


def append_line_bytes(path: Path, data: bytes) -> None:
    """Append `data` in one write and sync it; the caller holds the lock.

    A torn line that another process left is ended with a newline first.

    Raises:
        RegistryError: It was not written; a partial write is undone.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _BINARY, 0o666)
    except OSError as error:
        if path.is_dir():
            raise _not_a_file(path) from None
        raise registry_error(path, "cannot be written", error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _not_a_file(path)
        if end := status.st_size:
            os.lseek(descriptor, -1, os.SEEK_END)
            if os.read(descriptor, 1) != b"\n":
                data = b"\n" + data
        try:
            _write(descriptor, data)
        except OSError:
            # If this fails too, a torn line is left, which will be set aside.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, end)
            raise
    except OSError as error:
        raise registry_error(path, "the result could not be written", error) from error
    finally:
        os.close(descriptor)
    if not end:
        sync_folder(path.parent)


def _write(descriptor: int, data: bytes) -> None:
    # A full disk accepts a part first; only the next write raises the error.
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)


def write_durably(target: Path, source: Path | Iterable[bytes]) -> None:
    """Write the exact bytes of `source` to `target`, by an atomic replace.

    Raises:
        RegistryError: It could not be written; no partial file is left.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, _chunks(source) if isinstance(source, Path) else source)
    except OSError as error:
        raise registry_error(target, "cannot be written", error) from error


def _chunks(path: Path) -> Iterator[bytes]:
    with open_to_read(path) as stream:
        while chunk := stream.read(1 << 20):
            yield chunk


def stamped(folder: Path, prefix: str, suffix: str) -> list[Path]:
    """Return the files named by `next_stamped`, oldest first."""
    pattern = re.compile(re.escape(prefix) + r"\d{8}-\d{6}-\d{6}" + re.escape(suffix))
    try:
        return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))
    except OSError:
        return []


def next_stamped(folder: Path, prefix: str, suffix: str) -> Path:
    """Return an unused name with the UTC time that sorts last; the caller holds the lock.

    This also holds after the clock was set back.
    """
    stamp = int(f"{datetime.now(UTC):%Y%m%d%H%M%S%f}")
    if others := stamped(folder, prefix, suffix):
        newest = others[-1].name.removeprefix(prefix).removesuffix(suffix)
        stamp = max(stamp, int(newest.replace("-", "")) + 1)
    digits = f"{stamp:020d}"
    return folder / f"{prefix}{digits[:8]}-{digits[8:14]}-{digits[14:]}{suffix}"


def set_aside(path: Path, damaged: Iterable[bytes]) -> Path | None:
    """Copy damaged lines to a file beside the registry `path`, except those copied earlier.

    Returns the new file, or `None` when all were copied earlier. The caller holds the lock.
    """
    prefix, suffix = f"{path.stem}.corrupt-", path.suffix
    seen: set[bytes] = set()
    for earlier in stamped(path.parent, prefix, suffix):
        # If an earlier copy is unreadable, its lines are copied again.
        with contextlib.suppress(OSError, RegistryError), open_to_read(earlier) as stream:
            seen.update(stream.read().split(b"\n"))
    fresh = dict.fromkeys(line for raw in damaged if (line := raw.removesuffix(b"\n")) not in seen)
    if not fresh:
        return None
    target = next_stamped(path.parent, prefix, suffix)
    write_durably(target, (line + b"\n" for line in fresh))
    return target
