"""Every fault of an OpenAI-compatible server at every place: the verdict, and the next servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.openai import instance
from tests.end_to_end.faults.conftest import SILENCE_SECONDS, TIERS, verdicts
from tests.end_to_end.faults.http.kinds import ALWAYS, HEALTHY, KINDS, MODELS, ONCE
from tests.end_to_end.project import Project
from tests.standin.http.faults import HttpFault, Place
from tests.standin.lmstudio import StandInModel
from tests.standin.openai import OpenAiServer

PLACES: tuple[Place, ...] = ("predict", "fragment")


@pytest.fixture(autouse=True)
def _short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "_SLOWEST_PREFILL", 1e6)


@contextmanager
def stand_ins(where: Place, *, times: int = 1, skip: int = 0) -> Iterator[dict[str, OpenAiServer]]:
    """Servers of one model each, named by the fault that it has."""
    with ExitStack() as cleanup:
        servers = {}
        for key in MODELS:
            faults = [
                HttpFault(model=key, where=where, kind=kind, times=times, skip=skip)
                for kind in KINDS
                if kind == key
            ]
            server = OpenAiServer(StandInModel(key=key), 4096, http_faults=faults)
            servers[key] = cleanup.enter_context(server)
        yield servers


def run(
    project: Project, servers: dict[str, OpenAiServer], tier: str, contexts: tuple[int, ...]
) -> pytest.RunResult:
    entries = ", ".join(
        f"{{id: {key}, engine: openai, url: '{server.url}', contexts: {list(contexts)}}}"
        for key, server in servers.items()
    )
    project.pytester.makefile(".yaml", models=f"models: [{entries}]\n")
    return project.run(
        "--lmstrix", "--all", "-m", tier, f"--lmstrix-reply-timeout={SILENCE_SECONDS}"
    )


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("place", PLACES)
def test_a_single_fault_is_retried(project: Project, place: Place, tier: str) -> None:
    with stand_ins(place) as servers:
        run(project, servers, tier, (512,))
        assert [left for server in servers.values() for left in server.http_faults.left()] == []
    assert verdicts(project.results) == ONCE | HEALTHY


@pytest.mark.parametrize("tier", TIERS)
def test_a_fault_at_a_later_prediction_is_retried(project: Project, tier: str) -> None:
    sizes = (512, 1024, 1536, 2048)
    with stand_ins("fragment", skip=3) as servers:
        run(project, servers, tier, sizes)
        assert [left for server in servers.values() for left in server.http_faults.left()] == []
    struck = sizes[3 // {"fast": 1, "full": 2}[tier]]
    found = {(r.model, r.context_length): (r.verdict, r.retried) for r in project.results}
    fine = {(model, size): (Verdict.OK, False) for model in MODELS for size in sizes}
    assert found == fine | {(kind, struck): ONCE[kind] for kind in KINDS}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("place", PLACES)
def test_a_permanent_fault_gets_its_verdict(project: Project, place: Place, tier: str) -> None:
    with stand_ins(place, times=99) as servers:
        run(project, servers, tier, (512,))
    assert verdicts(project.results) == ALWAYS | HEALTHY
