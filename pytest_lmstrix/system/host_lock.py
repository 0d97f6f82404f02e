"""One model at a time in a slot of a host: locks that all processes of the machine share."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.system.addresses import name_and_port

FOLDER_VARIABLE = "PYTEST_LMSTRIX_LOCKS"
"""Environment variable for another lock folder, which all processes must then share."""

_POLL_SECONDS = 0.2


@contextmanager
def host_lock(
    host: str,
    *,
    slots: int = 1,
    take: int = 1,
    on_wait: Callable[[str], None] | None = None,
    timeout: float | None = None,
) -> Iterator[None]:
    """Lock `take` of the `slots` of `host` against all other processes of this machine.

    `on_wait` receives the holder at first and whenever it changes. `timeout` is in seconds, `None`
    waits without a limit. The system releases the lock of a process that exits in any way. A
    second `host_lock` of the same host in this process waits, too.

    Locks are in the folder `pytest-lmstrix` of `/tmp`, shared by all users; on Windows in the
    temporary folder of each user, since a file made by one user there cannot be locked by another.

    Raises:
        TimeoutError: It is still held after `timeout` seconds.
        OSError: The lock folder cannot be used; the text names it and the cause.
    """
    name = _file_name(host)
    paths = [_folder() / f"{name}{f'.{slot}' if slot else ''}.lock" for slot in range(slots)]
    deadline = None if timeout is None else time.monotonic() + timeout
    wait = partial(_lock_one, host, on_wait=on_wait, deadline=deadline)
    with ExitStack() as held:
        # Only one process collects slots at a time: two could deadlock, each holding a part.
        with wait([paths[0].with_name(f"{name}.turn.lock")]) if slots > 1 else nullcontext():
            for _ in range(min(take, slots)):
                held.enter_context(wait(paths))
        yield


@contextmanager
def _lock_one(
    host: str,
    paths: Sequence[Path],
    *,
    on_wait: Callable[[str], None] | None,
    deadline: float | None,
) -> Iterator[None]:
    """Lock the first free file of `paths`."""
    last_holder = None
    while (locked := _try_one(paths)) is None:
        holder = _read(paths[0].with_suffix(".holder")) or "another process"
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"{host} is still in use: {holder}")
        if on_wait is not None and holder != last_holder:
            on_wait(holder)
            last_holder = holder
        time.sleep(_POLL_SECONDS)
    lock, holder_file = locked
    try:
        _write(holder_file, _myself())
        yield
    finally:
        _write(holder_file, "")
        lock.release()


def _try_one(paths: Iterable[Path]) -> tuple[FileLock, Path] | None:
    for path in paths:
        # Not per thread: an interrupt may end a run in another thread than the one that began it.
        # FileLock itself refuses symbolic links.
        lock = FileLock(path, mode=0o666, thread_local=False)
        with suppress(Timeout):
            lock.acquire(timeout=0)
            return lock, path.with_suffix(".holder")
    return None


def _file_name(host: str) -> str:
    name, port = name_and_port(host)
    readable = re.sub(r"[^a-z0-9.]+", "_", name)[:80]
    return f"{readable}-{port}-{hashlib.sha256(f'{name}:{port}'.encode()).hexdigest()[:8]}"


def _folder() -> Path:
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        folder = Path(named)
    elif sys.platform == "win32":
        folder = Path(tempfile.gettempdir()) / "pytest-lmstrix"
    else:
        # Not $TMPDIR, which differs between users and jobs.
        folder = Path("/tmp") / "pytest-lmstrix"
    with suppress(FileExistsError):
        folder.mkdir(parents=True)
        # All users may add locks but not remove others'. `mkdir` would apply the umask.
        folder.chmod(0o1777)
    if folder.is_symlink() or not folder.is_dir():
        raise NotADirectoryError(
            f"{folder}: the lock folder must be a folder, not a link or a file"
        )
    return folder


_NEVER_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def _read(path: Path) -> str:
    """Return the sanitized text of a file that any user can write; empty if unreadable."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | _NEVER_FOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            return one_line(file.read(1000).decode(errors="replace"))
    return ""


def _write(path: Path, text: str) -> None:
    """Best effort: another user's file is written in place, since it cannot be replaced."""
    with suppress(OSError):
        flags = os.O_WRONLY | _NEVER_FOLLOW
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            with suppress(OSError):
                path.chmod(0o666)
        except FileExistsError:
            descriptor = os.open(path, flags | os.O_TRUNC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode(errors="replace"))


def _myself() -> str:
    user = "unknown user"
    with suppress(KeyError, OSError, ImportError):  # a user id without a name
        user = getpass.getuser()
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and sys.argv[0] == "-c":  # a worker has no command line
        command = f"worker {worker} of pytest-xdist, started by pid {os.getppid()}"
    return f"pid {os.getpid()} of {user}: {one_line(command, 120)}"
