"""Identifies the machine that produced a result."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid


def machine_id() -> str:
    """Return an anonymous id of this machine: only results of one machine are compared.

    `PYTEST_LMSTRIX_MACHINE` gives identical machines, such as hosted runners, one id.
    """
    given = os.environ.get("PYTEST_LMSTRIX_MACHINE")
    # Not the host name, which changes with the network; the hardware's address, unless random.
    address = uuid.getnode()
    here = platform.node() if address >> 40 & 1 else f"{address:x}"
    facts = given or f"{here} {platform.machine()} {platform.system()}"
    return hashlib.sha256(facts.encode()).hexdigest()[:12]
