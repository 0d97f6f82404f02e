"""How models are given out to hosts, in virtual time: `python benchmarks/assignment.py [SEED]`.

The plugin's own assignment: a worker that has ended a model gets the next one. Real durations
differ from the expected ones by a factor of 0.5 to 2. Of the fleet `by memory`, half of the hosts
have 16 GB, and a quarter each 24 and 80 GB: models go where the plugin's own placement finds that
they fit. Of `own models`, half of the hosts have 20 short ones each that no other has, which take
one and a third times the mean of a host's time for the others.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from heapq import heappop, heappush
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from msgspec.structs import replace

from pytest_lmstrix.core.types import Host, Model
from pytest_lmstrix.plan.assignment import Assignment, Job, lower_bound
from pytest_lmstrix.plan.hosts.placement import placed
from pytest_lmstrix.plan.plan import PlannedModel

FLEETS = ((64, 8), (10_000, 100))
"""Models and hosts."""
MEMORY_GB = (16, 16, 24, 80)
"""Of the hosts, in turn."""


def main() -> None:
    """Print the makespan against the bound, the idle share, and what a dead host costs."""
    seed = int(next(iter(sys.argv[1:]), 0))
    print("models hosts placement                  makespan/bound  idle  with a dead host/bound")
    for models, hosts in FLEETS:
        workers = [str(number) for number in range(hosts)]
        for name, make_jobs in PLACEMENTS.items():
            rng = random.Random(seed)
            jobs = make_jobs(rng, models, workers)
            took = {job.model: job.seconds * rng.uniform(0.5, 2) for job in jobs}
            real = [replace(job, seconds=took[job.model]) for job in jobs]
            bound = _bound(real, workers)
            makespan, idle = _run(jobs, took, workers)
            after_death, _ = _run(jobs, took, workers, dies_at=bound / 2)
            left = _bound(real, workers, lost=0.5)
            print(f"{models:>6} {hosts:>5} {name:<26} {makespan / bound:>13.3f} {idle:>6.1%}"
                  f" {after_death / left:>12.3f}")  # fmt: skip


def _anywhere(rng: random.Random, models: int, workers: list[str]) -> list[Job]:
    return [_job(rng, number, ()) for number in range(models)]


def _half_on_two(rng: random.Random, models: int, workers: list[str]) -> list[Job]:
    return [
        _job(rng, number, rng.sample(workers, 2) if rng.random() < 0.5 else ())
        for number in range(models)
    ]


def _own_models(rng: random.Random, models: int, workers: list[str]) -> list[Job]:
    jobs = _anywhere(rng, models, workers)
    seconds = sum(job.seconds for job in jobs) / len(workers) * 4 / 3 / 20
    return jobs + [
        Job(model=f"{worker} {number}", seconds=seconds, workers=frozenset([worker]))
        for worker in workers[::2]
        for number in range(20)
    ]


def _by_memory(rng: random.Random, models: int, workers: list[str]) -> list[Job]:
    hosts = [
        Host(address=worker, memory_bytes=MEMORY_GB[place % len(MEMORY_GB)] * 10**9)
        for place, worker in enumerate(workers)
    ]
    jobs = []
    for number in range(models):
        size = int(min(rng.lognormvariate(2, 0.8), max(MEMORY_GB)) * 10**9)
        model = PlannedModel(model=Model(id=str(number), engine="lmstudio"), context_lengths=(1,))
        jobs.append(_job(rng, number, placed(model, hosts, {1: size}.get).hosts))
    return jobs


def _job(rng: random.Random, number: int, places: Iterable[str]) -> Job:
    return Job(model=str(number), seconds=rng.lognormvariate(4, 1), workers=frozenset(places))


PLACEMENTS = {
    "anywhere": _anywhere,
    "half of them on 2 hosts": _half_on_two,
    "by memory": _by_memory,
    "own models": _own_models,
}


def _bound(jobs: list[Job], workers: list[str], lost: float = 0.0) -> float:
    """Return what no plan can stay below, with a part of the first worker `lost`.

    Where models share few sets of hosts, such as those with enough memory, each set has a bound.
    """
    sets = {job.workers for job in jobs if job.workers}
    sets = {frozenset(workers), *(sets if len(sets) <= len(MEMORY_GB) else ())}
    if lost:  # then its own models are for all
        sets.discard(frozenset(workers[:1]))
    return max(
        lower_bound(alone, len(some)) * len(some) / (len(some) - lost * (workers[0] in some))
        for some in sets
        if (alone := [job for job in jobs if (job.workers or frozenset(workers)) <= some])
    )


def _run(
    jobs: list[Job], took: dict[str, float], workers: list[str], dies_at: float = float("inf")
) -> tuple[float, float]:
    """Return the end of the last model and the share of time that workers were idle."""
    assignment = Assignment()
    assignment.add(jobs)
    for worker in workers:
        assignment.add_worker(worker)
    events: list[tuple[float, str]] = []
    running: dict[str, Job] = {}
    busy = ended = 0.0
    waiting = [(0.0, worker) for worker in workers]
    while waiting or events:
        while waiting:
            now, worker = waiting.pop()
            if (job := assignment.take(worker)) is None:
                continue
            running[worker] = job
            busy += took[job.model]
            heappush(events, (now + took[job.model], worker))
        if not events:
            break
        now, worker = heappop(events)
        if worker == workers[0] and now >= dies_at:
            assignment.remove_worker(worker)
            assignment.add([running[worker]])
            idle = [each for each in workers[1:] if each not in {name for _, name in events}]
            waiting += [(now, each) for each in idle]
            dies_at = float("inf")
            continue
        ended = now
        waiting.append((now, worker))
    return ended, 1 - busy / (ended * len(workers))


if __name__ == "__main__":
    main()
