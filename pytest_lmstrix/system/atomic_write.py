"""Atomic replace: a file is written whole beside its place, synced, and moved there in one step."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def atomic_write(
    path: Path,
    data: bytes | Iterable[bytes],
    *,
    mode: int | None = None,
    durable: bool = True,
    before_replace: Callable[[], None] = lambda: None,
) -> None:
    """Write `data` to `path`, which holds its old content or all of the new at any time.

    The permissions of an existing file are kept; a new one gets `mode`, or those that the umask
    leaves. A link is replaced by a file: resolve it first to write to its target. A `durable`
    write survives a power cut. `before_replace` may still raise to keep the old content.

    Raises:
        OSError: It cannot be written. As after any other exception, `path` is as it was before
            and nothing else is left, unless only the removal of the new file failed.
    """
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    # What others may not read of the old file, they never can of the draft.
    private = mode is not None or path.exists()
    descriptor = os.open(draft, _FLAGS, 0o600 if private else 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines((data,) if isinstance(data, bytes) else data)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        if path.exists():
            shutil.copymode(path, draft)
        elif mode is not None:
            draft.chmod(mode)
        before_replace()
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a new name in `folder` survive a power cut, where the system can (not on Windows)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
