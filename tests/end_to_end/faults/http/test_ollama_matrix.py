"""Every fault of an Ollama at every place: the verdict, the next models, nothing left loaded."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.ollama import engine, instance
from tests.end_to_end.faults.conftest import SILENCE_SECONDS, TIERS, verdicts
from tests.end_to_end.faults.http.kinds import ALWAYS, HEALTHY, KINDS, MODELS, ONCE
from tests.end_to_end.project import Project
from tests.standin.http.faults import HttpFault, Place
from tests.standin.lmstudio import StandInModel
from tests.standin.ollama import OllamaServer

PLACES: tuple[Place, ...] = ("load", "predict", "fragment")


@pytest.fixture(autouse=True)
def _short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "_SLOWEST_PREFILL", 1e6)
    monkeypatch.setattr(engine, "ABORT_SECONDS", 0.2)


def stand_in(faults: Iterable[HttpFault]) -> OllamaServer:
    models = [StandInModel(key=key, size_bytes=10**9 + at) for at, key in enumerate(MODELS)]
    server = OllamaServer([*models, StandInModel(key="users")], faults=faults)
    server.use("users", 2048, 3600)
    return server


def run(
    project: Project, server: OllamaServer, tier: str, contexts: Iterable[int] = (512,)
) -> pytest.RunResult:
    """Run all models, in their order; afterwards the user's model alone is loaded."""
    entries = ", ".join(
        f"{{id: {each}, engine: ollama, contexts: {list(contexts)}, context_limit: 4096}}"
        for each in MODELS
    )
    project.pytester.makefile(".yaml", models=f"models: [{entries}]\n")
    limits = [f"--lmstrix-{each}-timeout={SILENCE_SECONDS}" for each in ("load", "reply")]
    host = ("--lmstrix-host", server.host)
    result = project.run("--lmstrix", "--all", "-m", tier, *host, *limits)
    assert server.loaded == {"users:latest": 2048}
    assert [each for each in server.events if "users" in each] == ["load users:latest 2048"]
    return result


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("place", PLACES)
def test_a_single_fault_is_retried(project: Project, place: Place, tier: str) -> None:
    faults = [HttpFault(model=kind, where=place, kind=kind) for kind in KINDS]
    with stand_in(faults) as server:
        run(project, server, tier)
        assert server.faults.left() == []
    assert verdicts(project.results) == ONCE | HEALTHY


@pytest.mark.parametrize("tier", TIERS)
def test_a_fault_at_a_later_prediction_is_retried(project: Project, tier: str) -> None:
    faults = [HttpFault(model=kind, where="fragment", kind=kind, skip=3) for kind in KINDS]
    sizes = (512, 1024, 1536, 2048)
    with stand_in(faults) as server:
        run(project, server, tier, sizes)
        assert server.faults.left() == []
    struck = sizes[3 // {"fast": 1, "full": 2}[tier]]
    found = {(r.model, r.context_length): (r.verdict, r.retried) for r in project.results}
    fine = {(model, size): (Verdict.OK, False) for model in MODELS for size in sizes}
    assert found == fine | {(kind, struck): ONCE[kind] for kind in KINDS}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("place", PLACES)
def test_a_permanent_fault_gets_its_verdict(project: Project, place: Place, tier: str) -> None:
    faults = [HttpFault(model=kind, where=place, kind=kind, times=99) for kind in KINDS]
    with stand_in(faults) as server:
        run(project, server, tier)
    # A load whose answer is no JSON is that of another server, as a lost connection is.
    expected = {kind: ALWAYS[kind] for kind in ALWAYS if (place, kind) != ("load", "garbage")}
    assert verdicts(project.results) == expected | HEALTHY
