"""Which worker tests which model next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.plan.assignment import Assignment, Job, lower_bound

WORKERS = ("a", "b", "c")


@st.composite
def _jobs(draw: st.DrawFn) -> list[Job]:
    seconds = st.floats(0, 1000)
    places = st.frozensets(st.sampled_from(WORKERS), max_size=3)
    pairs = draw(st.lists(st.tuples(seconds, places), max_size=30))
    return [Job(model=str(n), seconds=s, workers=w) for n, (s, w) in enumerate(pairs)]


def assigned(jobs: list[Job], workers: tuple[str, ...] = WORKERS) -> Assignment:
    assignment = Assignment()
    assignment.add(jobs)
    for worker in workers:
        assignment.add_worker(worker)
    return assignment


def run(assignment: Assignment, workers: tuple[str, ...] = WORKERS) -> tuple[float, list[str]]:
    """Return the end of the last job, and all jobs that ran, in a virtual time."""
    free_at = dict.fromkeys(workers, 0.0)
    ran: list[str] = []
    while free_at:
        worker = min(free_at, key=lambda each: (free_at[each], each))
        job = assignment.take(worker)
        if job is None:
            ended = free_at.pop(worker)
            if not free_at:
                return ended, ran
            continue
        assert job.may_run_on(worker) or not job.workers & {*workers}
        ran.append(job.model)
        free_at[worker] += job.seconds
    return 0.0, ran


@given(_jobs())
def test_every_model_runs_once_where_it_may(jobs: list[Job]) -> None:
    assignment = assigned(jobs)
    _, ran = run(assignment)
    assert sorted(ran) == sorted(job.model for job in jobs)


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=60))
def test_models_that_run_anywhere_end_within_four_thirds_of_the_bound(seconds: list[float]) -> None:
    jobs = [Job(model=str(n), seconds=each) for n, each in enumerate(seconds)]
    free_at = dict.fromkeys(WORKERS, 0.0)
    assignment = assigned(jobs)
    for _ in jobs:
        worker = min(free_at, key=lambda each: free_at[each])
        job = assignment.take(worker)
        assert job is not None
        free_at[worker] += job.seconds
    longest = sorted(seconds)[-len(WORKERS) - 1 :]
    pairs = longest[0] + longest[1] if len(seconds) > len(WORKERS) else 0.0
    assert max(free_at.values()) <= max(lower_bound(jobs, 3), pairs) * 4 / 3 + 1e-6


@given(_jobs(), st.sampled_from(WORKERS))
def test_models_of_a_worker_that_is_gone_run_on_the_others(jobs: list[Job], gone: str) -> None:
    assignment = assigned(jobs)
    taken = assignment.take(gone)
    assignment.remove_worker(gone)
    if taken is not None:
        assignment.add([taken])
    left = tuple(each for each in WORKERS if each != gone)
    assert sorted(run(assignment, left)[1]) == sorted(job.model for job in jobs)


def test_a_worker_that_is_back_is_used_again() -> None:
    assignment = assigned([Job(model=str(n), seconds=1) for n in range(6)], ("a", "b"))
    assignment.remove_worker("b")
    assignment.add_worker("b")
    assert sorted(run(assignment, ("b",))[1]) == list("012345")


def test_the_longest_model_is_first_and_the_last_ones_are_short() -> None:
    assignment = assigned([Job(model=str(n), seconds=n) for n in range(1, 10)], ("a",))
    assert run(assignment, ("a",))[1] == [str(n) for n in range(9, 0, -1)]


def test_models_of_few_workers_come_first_where_they_fill_the_share() -> None:
    own = [Job(model=f"own {n}", seconds=10, workers=frozenset("a")) for n in range(9)]
    others = [Job(model=f"other {n}", seconds=30) for n in range(3)]
    end, _ = run(assigned([*others, *own], ("a", "b")), ("a", "b"))
    assert end == 90


def test_long_models_come_before_few_short_ones_of_a_worker() -> None:
    own = [Job(model=each, seconds=1, workers=frozenset(each)) for each in "ab"]
    end, _ = run(assigned([*own, Job(model="long", seconds=100)], ("a", "b")), ("a", "b"))
    assert end == 101


def test_models_of_unknown_duration_are_all_handed_out() -> None:
    assignment = assigned([Job(model=str(n)) for n in range(7)])
    assert len(run(assignment)[1]) == 7
