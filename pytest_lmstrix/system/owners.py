"""Names the process that owns a loaded instance, and detects owners that have certainly exited."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import sys
import uuid
from functools import cache
from pathlib import Path

import psutil

_TOKEN = re.compile(r"([0-9a-f]{12})-([0-9a-f]{1,8})-([0-9a-f]{1,16})")


def owner_token() -> str:
    """Return a unique id of this process: machine, process id and start time.

    At most 38 characters of `0-9a-f-`, so that it fits in an LM Studio identifier.
    """
    pid = os.getpid()
    return f"{_machine()}-{pid:x}-{_started(pid) or 0:x}"


def owner_is_dead(token: str) -> bool:
    """Return whether the process with that `owner_token` has certainly exited.

    False for one of another machine, container or boot, and for an invalid token.
    """
    found = _TOKEN.fullmatch(token)
    if found is None or found[1] != _machine():
        return False
    pid, started = int(found[2], 16), int(found[3], 16)
    try:
        return not _exists(pid) or (started > 0 and _started(pid) not in (None, started))
    except OverflowError:  # no process can have such an id
        return False


@cache
def _machine() -> str:
    """Return the scope in which process ids are unique: a boot and a process namespace."""
    try:
        if sys.platform == "linux":
            # Names and addresses may be equal in two containers, or a machine and its clone.
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
            facts = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
        else:
            facts = f"{platform.node()} {uuid.getnode()}"
    except OSError:
        facts = secrets.token_hex()  # unique, so no owner counts as exited
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


def _exists(pid: int) -> bool:
    if sys.platform == "win32":
        return psutil.pid_exists(pid)
    # Not by looking into /proc, where the processes of other users may be hidden.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _started(pid: int) -> int | None:
    """Return a start time in system units; 0 if the process has exited, `None` if hidden."""
    try:
        if sys.platform == "linux":
            # Ticks since the boot: psutil's seconds move when the clock is set.
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            state, *fields = text.rpartition(")")[2].split()
            return 0 if state in "ZX" else int(fields[18])
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return 0 if ended else round(process.create_time() * 1000)
    except (OSError, psutil.Error):
        return None
