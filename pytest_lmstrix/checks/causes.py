"""What may be behind a failed load: memory that others hold, or a mistyped id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches

from pytest_lmstrix.core.failure import DID_YOU_MEAN, Failure
from pytest_lmstrix.core.formatting import memory
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Engine, ListsOthers
from pytest_lmstrix.engines.catalog import host_of

MATTERS = 0.1
"""Share of a model's own size from which memory held by others may be why it does not fit."""
SIMILAR = 3
"""Ids of other models that are suggested for one that is not found."""
_NO_ROOM = (Verdict.OUT_OF_MEMORY, Verdict.GUARDRAIL_REFUSED)
_KILLED = re.compile(r"\bSIGKILL\b|\bexit code\W{1,3}137\b", re.IGNORECASE)
"""An exit that no model causes itself: systems end processes so for lack of memory."""

_OWN = re.compile(r"lmstrix-")
"""An instance of another slot or of another run: no person can be asked to unload it."""


def may_lack_memory(failure: Failure) -> bool:
    """Whether less memory in use by others may have helped."""
    killed = failure.verdict is Verdict.CRASHED and _KILLED.search(failure.text)
    return failure.verdict in _NO_ROOM or bool(killed)


def held_by_others(engine: Engine, model: Model) -> str:
    """Describe the instances of others in memory, where they are large enough to matter."""
    others: Mapping[str, int | None] = {}
    with suppress(Exception):  # third-party engines may raise anything
        others = engine.others() if isinstance(engine, ListsOthers) else {}
    sizes = [size for size in others.values() if size is not None]
    known = len(sizes) == len(others) and model.size_bytes is not None
    if not others or (known and sum(sizes) < MATTERS * (model.size_bytes or 0)):
        return ""
    listed = (
        f"{name} ({memory(size)})" if size is not None else name for name, size in others.items()
    )
    whose = "loaded by pytest-lmstrix" if all(map(_OWN.match, others)) else "unload them there"
    return f"still in memory of {host_of(engine)}: {', '.join(listed)}; {whose}"


def similar_ids(engine: Engine, model: Model) -> str:
    """Return a line with the nearest ids that the engine has, or nothing."""
    names: list[str] = []
    with suppress(Exception, SystemExit):  # third-party engines may raise anything
        names = [facts.id for facts in engine.models() if facts.id != model.name]
    near = get_close_matches(model.name, names, n=SIMILAR)
    return f"\n{DID_YOU_MEAN} {', '.join(map(repr, near))}?" if near else ""
