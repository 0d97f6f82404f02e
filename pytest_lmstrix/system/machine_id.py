"""Identifies the machine that results come from."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid


def machine_id() -> str:
    """Identifies this machine without naming it: results are compared with their like.

    `PYTEST_LMSTRIX_MACHINE` gives machines that are alike, such as hosted runners, one name.
    """
    given = os.environ.get("PYTEST_LMSTRIX_MACHINE")
    # Not the host name, which changes with the network; the hardware's address, unless random.
    address = uuid.getnode()
    here = platform.node() if address >> 40 & 1 else f"{address:x}"
    facts = given or f"{here} {platform.machine()} {platform.system()}"
    return hashlib.sha256(facts.encode()).hexdigest()[:12]
