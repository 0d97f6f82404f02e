"""The faults of servers over HTTP, each with a model of its name, and their verdicts."""

from __future__ import annotations

from pytest_lmstrix.core.verdicts import Verdict
from tests.standin.http.faults import Kind

KINDS: tuple[Kind, ...] = ("error", "crash", "hang", "lost", "garbage", "ends")
MODELS = [*KINDS, "healthy"]
HEALTHY = {"healthy": (Verdict.OK, False)}
ONCE: dict[str, tuple[Verdict, bool]] = dict.fromkeys(KINDS, (Verdict.OK, True))
ALWAYS = {
    "error": (Verdict.ENGINE_ERROR, True),
    "crash": (Verdict.CRASHED, True),
    "hang": (Verdict.TIMEOUT, True),
    "garbage": (Verdict.ENGINE_ERROR, True),
    "ends": (Verdict.ENGINE_ERROR, True),
}
