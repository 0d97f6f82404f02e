"""Every server fault at every place: the verdict, the next models, and no leaks."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.faults.conftest import (
    SILENCE_SECONDS,
    TIERS,
    assert_only_ours_were_touched,
    ours,
    releasing,
    run,
    stand_in,
    verdicts,
)
from tests.end_to_end.project import Project
from tests.sampling import few_of
from tests.standin.lmstudio import Fault, ServerError

OTHER = ServerError(title="Something went wrong.")
PLACES: dict[str, dict[str, Any]] = {
    "load": {"where": "load"},
    "mid-load": {"where": "load_progress", "after": 0.5},
    "first": {"where": "predict"},
    "prefill": {"where": "prefill", "after": 0.5},
    "reply": {"where": "fragment"},
}
KINDS: dict[str, dict[str, Any]] = {
    "error": {"kind": "error", "error": OTHER},
    "hang": {"kind": "hang"},
    "closed": {"kind": "close_channel"},
    "lost": {"kind": "close_socket"},
    "garbage": {"kind": "garbage"},
    "crash": {"kind": "crash"},
}
ONCE = dict.fromkeys(KINDS, (Verdict.OK, True))
ALWAYS = {
    "error": (Verdict.ENGINE_ERROR, True),
    "closed": (Verdict.ENGINE_ERROR, True),
    "hang": (Verdict.TIMEOUT, True),
    "crash": (Verdict.CRASHED, True),
}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("place", few_of(["mid-load", "reply", "load", "first", "prefill"], 2))
def test_a_single_fault_is_retried(project: Project, place: str, tier: str) -> None:
    faults = [Fault(model=kind, **PLACES[place], **KINDS[kind]) for kind in KINDS]
    models = [*KINDS, "healthy"]
    with stand_in(models, faults=faults) as server, releasing(server):
        run(project, server, models, tier)
        assert server.faults_left() == ()
        assert ours(server) == []
    assert_only_ours_were_touched(server)
    assert verdicts(project.results) == ONCE | {"healthy": (Verdict.OK, False)}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("nth", few_of([3, 2, 4], 1))
def test_a_fault_at_a_later_prediction_is_retried(project: Project, nth: int, tier: str) -> None:
    faults = [Fault(model=kind, where="predict", skip=nth - 1, **KINDS[kind]) for kind in KINDS]
    models, sizes = [*KINDS, "healthy"], [512, 1024, 1536, 2048]
    with stand_in(models, faults=faults) as server, releasing(server):
        run(project, server, models, tier, contexts=sizes)
        assert server.faults_left() == ()
        assert ours(server) == []
    assert_only_ours_were_touched(server)
    predictions = {"fast": 1, "full": 2}[tier]
    struck = sizes[(nth - 1) // predictions]
    found = {(r.model, r.context_length): (r.verdict, r.retried) for r in project.results}
    fine = {(model, size): (Verdict.OK, False) for model in models for size in sizes}
    assert found == fine | {(kind, struck): ONCE[kind] for kind in KINDS}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("place", ["mid-load", "reply"])
def test_a_permanent_fault_gets_its_verdict(project: Project, place: str, tier: str) -> None:
    faults = [Fault(model=kind, times=99, **PLACES[place], **KINDS[kind]) for kind in KINDS]
    models = [*KINDS, "healthy"]
    with stand_in(models, faults=faults) as server, releasing(server):
        result = run(project, server, models, tier)
        assert ours(server) == []
    assert_only_ours_were_touched(server)
    assert verdicts(project.results) == ALWAYS | {"healthy": (Verdict.OK, False)}
    result.assert_outcomes(passed=1, failed=4, errors=2)


def test_slow_progress_is_not_a_timeout(project: Project) -> None:
    step = {"kind": "slow", "seconds": 0.7 * SILENCE_SECONDS, "times": 2}
    faults = [Fault(model="a", where="load_progress", **step)]
    faults.append(Fault(model="b", where="fragment", **step))
    with stand_in(["a", "b"], faults=faults) as server:
        run(project, server, ["a", "b"], "full")
        assert server.faults_left() == ()
    assert verdicts(project.results) == dict.fromkeys("ab", (Verdict.OK, False))
