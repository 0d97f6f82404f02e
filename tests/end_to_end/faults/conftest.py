"""Projects for fault injection, with short timeouts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from pytest_lmstrix.checks import loader
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.lmstudio import connection
from pytest_lmstrix.engines.lmstudio.engine import PREFIX, LmStudioEngine
from tests.end_to_end.project import Project
from tests.sampling import few_of
from tests.standin.lmstudio import LmStudioServer, StandInModel, UserInstance

TIERS = few_of(["full", "fast"], 1)
SILENCE_SECONDS = 2.0
"""Timeout of loads, replies and short calls."""
USERS = UserInstance(key="users")


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RPC_SECONDS", SILENCE_SECONDS)
    monkeypatch.setattr(loader, "RECONNECT_PAUSES", (0.0, 0.01, 0.02))
    monkeypatch.setitem(LmStudioEngine.__init__.__kwdefaults__, "unload_seconds", 0.3)


def stand_in(models: Iterable[str], **options: object) -> LmStudioServer:
    """A server with `models` in this order, and one instance loaded by its user."""
    made = [StandInModel(key=key, size_bytes=10**9 + at) for at, key in enumerate(models)]
    made.append(StandInModel(key="users"))
    return LmStudioServer(made, loaded=[USERS], **options)  # type: ignore[arg-type]


@contextmanager
def releasing(server: LmStudioServer) -> Iterator[None]:
    """Release hanging calls once the client has given up and sends another request."""
    over = threading.Event()

    def given_up() -> bool:
        hanging = [*server.pending("loadModel"), *server.pending("predict")]
        return over.is_set() or any(call.number < len(server.calls) - 1 for call in hanging)

    def release() -> None:
        while not over.is_set():
            server.wait_for(given_up, 600)
            server.release()

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield
    finally:
        over.set()
        server.nudge()
        thread.join()


def run(
    project: Project,
    server: LmStudioServer,
    models: Iterable[str],
    tier: str,
    *args: str,
    contexts: Sequence[int] = (512,),
) -> pytest.RunResult:
    """Run `models`, in this order, each at `contexts`."""
    entries = ", ".join(
        f"{{id: {each}, contexts: {list(contexts)}, size_bytes: {10**9 + at}, context_limit: 4096}}"
        for at, each in enumerate(models)
    )
    project.pytester.makefile(".yaml", models=f"models: [{entries}]\n")
    limits = [f"--lmstrix-{each}-timeout={SILENCE_SECONDS}" for each in ("load", "reply")]
    return project.run(
        "--lmstrix", "--all", "-m", tier, "--lmstrix-host", server.host, *limits, *args
    )


def verdicts(results: Iterable[Result]) -> dict[str, tuple[Verdict, bool]]:
    """Verdict of each model, and whether it was retried."""
    return {result.model: (result.verdict, result.retried) for result in results}


def ours(server: LmStudioServer) -> list[str]:
    """Instances of this plugin that are loaded."""
    return [name for name in server.loaded() if name.startswith(PREFIX)]


def assert_only_ours_were_touched(server: LmStudioServer, *, at_once: int = 1) -> None:
    touched = [*server.loads(), *server.unloads(), *server.predictions()]
    assert all((call.identifier or "").startswith(PREFIX) for call in touched)
    assert server.violations == []
    assert {c.why for c in server.changes if c.identifier == "users"} <= {"user", "restart"}
    assert server.max_loaded_at_once(PREFIX) <= at_once
