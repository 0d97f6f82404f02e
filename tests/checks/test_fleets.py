"""Generated fleets: every verdict and every reported working size is correct."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from tests.checks.fleets import BLUR, Subject, fleet
from tests.checks.laboratory import SKIPPED, Run, loader_of
from tests.sampling import few_of
from tests.standin.lmstudio import LmStudioServer

FLEETS = int(os.environ.get("LMSTRIX_FLEETS", "208"))
"""Number of fleets; the duration is proportional to it."""
BATCH = 8
"""Fleets per server."""
FLOOR = 4_096


def stepping_down(subject: Subject, size: int, good: int) -> int | None:
    """The size found by successive 10 % reductions of `size`, or the granted one."""
    granted = subject.stand_in.grant(size)
    if max(good + 1, FLOOR) <= granted < size and granted <= subject.capacity:
        return granted
    steps = (size * 9**n // 10**n for n in range(1, 200))
    works = next((step for step in steps if step <= subject.capacity), 0)
    return max(works if works >= FLOOR else 0, good) or None


def is_true(subject: Subject, result: Result) -> bool:
    """Whether a verdict is acceptable; just above its capacity a model may still recall all."""
    size, capacity = result.context_length, subject.capacity
    blurred = subject.check == "deep" and capacity < size <= capacity / BLUR
    return result.verdict is subject.verdict(size) or (blurred and result.verdict is Verdict.OK)


def expect_descent(subject: Subject, results: list[Result], good: int) -> None:
    """Check that the detail names exactly the size that stepping down finds."""
    result, *tried = results
    said = result.detail.splitlines()[-1 if "any size" in result.notes else 0]
    size = result.context_length
    found = max((r.context_length for r in tried if r.verdict is Verdict.OK), default=good) or None
    if subject.check == "full":
        assert found == stepping_down(subject, size, good)
    else:
        assert found in (None, good) or (found or 0) <= subject.capacity / BLUR
        assert (found or 0) >= (stepping_down(subject, size, good) or 0)
    if found:
        works = f"works at {found:,}"
    elif tried and {result.load_seconds, min(tried, key=_size).load_seconds} == {None}:
        assert said == "fails at any size"
        return
    elif tried:
        works = f"works at no size tried down to {min(r.context_length for r in tried):,}"
    else:
        works = "no smaller size is tried"
    assert said == f"fails at {size:,}; {works}"


def _size(result: Result) -> int:
    return result.context_length


def expect_true_checks(run: Run, subject: Subject, server: LmStudioServer) -> None:
    """Run `full` or `deep` at all sizes; the search takes at most six loads."""
    failed_at = None
    shown = 0
    found = run.check(subject.check, subject.cases())
    loads = [c.context_length for c in server.loads() if c.model_key == subject.model.id]
    assert len([size for size in loads if size not in subject.sizes]) <= 6
    for size, results in found.items():
        if failed_at is not None:
            assert results is SKIPPED
            continue
        assert results is not None
        result = results[0]
        verdict = subject.verdict(size)
        if not shown and "garbage-full" not in subject.model.id and _unable(subject, verdict):
            verdict = Verdict.INCONCLUSIVE
        assert result.verdict is verdict, result
        assert (result.context_length, result.check) == (size, subject.check)
        assert all(is_true(subject, each) for each in results[1:])
        if verdict is Verdict.CRASHED:
            assert result.retried
        elif not subject.needs_two_tries:
            # A crash in the load of a larger size may be of either size
            # when both are measured in one load.
            assert not result.retried or "at-work-deep" in subject.model.id
        elif subject.check == "full" and size == subject.sizes[0] and verdict is Verdict.OK:
            assert result.retried
        below = size < subject.stand_in.max_context_length
        if verdict is Verdict.OK:
            shown = size
        elif verdict.smaller_may_help and size >= FLOOR and below:
            expect_descent(subject, results, shown)
            failed_at = size
        else:
            assert len(results) == 1
        if verdict is Verdict.CONTEXT_NOT_GRANTED:
            granted = subject.stand_in.grant(size)
            assert result.granted_context_length == granted
            assert f"asked for {size:,} tokens of context, granted {granted:,}" in result.detail


def _unable(subject: Subject, verdict: Verdict) -> bool:
    """Garbage at every size cannot be distinguished from a model that is too weak."""
    return subject.model.id.startswith("garbage-deep") and verdict is Verdict.RECALL_FAILED


def expect_true_limit(run: Run, subject: Subject) -> None:
    declared = subject.stand_in.max_context_length
    results = run.size_policy.run("limit", replace(subject.cases()[0], context_length=declared))
    assert {r.check for r in results} == {"limit"}
    assert max(r.context_length for r in results) <= declared
    assert all(is_true(subject, each) for each in results)
    result, truth = results[0], subject.capacity
    if truth >= 1_000:
        assert result.verdict is Verdict.OK
        assert result.context_length <= truth <= result.context_length + max(256, truth // 100)
        assert f"works up to {result.context_length:,} of {declared:,} tokens" in result.detail
    elif result.verdict is not Verdict.OK:
        assert result.verdict is subject.above
        assert truth <= 256 or truth < min(r.context_length for r in results)


@pytest.mark.parametrize("batch", few_of(range(FLEETS // BATCH), 3))
def test_all_verdicts_and_sizes_match_the_simulated_fleet(batch: int) -> None:
    fleets = {seed: fleet(seed) for seed in range(batch * BATCH, (batch + 1) * BATCH)}
    models = [each.stand_in for subjects in fleets.values() for each in subjects]
    with LmStudioServer(models) as server, loader_of(server) as loader:
        for seed, subjects in fleets.items():
            run = Run(loader, seed=seed)
            for subject in subjects:
                expect_true_checks(run, subject, server)
            for subject in subjects:
                if subject.check == "full":
                    expect_true_limit(run, subject)
        loader.unload()
        assert server.loaded() == ()
        assert server.max_loaded_at_once() == 1
    assert server.violations == []
