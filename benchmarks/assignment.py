"""How models are given out to hosts, in virtual time: `python benchmarks/assignment.py [SEED]`.

The plugin's own assignment, with workers that know their next model before they end one, as those
of pytest-xdist do. Real durations differ from the expected ones by a factor of 0.5 to 2.
"""

from __future__ import annotations

import random
import sys
from heapq import heappop, heappush
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pytest_lmstrix.plan.assignment import Assignment, Job, lower_bound

FLEETS = ((64, 8), (10_000, 100))
"""Models and hosts."""


def main() -> None:
    """Print the makespan against the bound, the idle share, and what a dead host costs."""
    seed = int(next(iter(sys.argv[1:]), 0))
    print("models hosts placement                  makespan/bound  idle  with a dead host/bound")
    for models, hosts in FLEETS:
        workers = [str(number) for number in range(hosts)]
        for name, share in (("anywhere", 0.0), ("half of them on 2 hosts", 0.5)):
            rng = random.Random(seed)
            jobs = [_job(rng, number, workers, share) for number in range(models)]
            took = {job.model: job.seconds * rng.uniform(0.5, 2) for job in jobs}
            real = [Job(model=job.model, seconds=took[job.model]) for job in jobs]
            bound = lower_bound(real, hosts)
            makespan, idle = _run(jobs, took, workers)
            after_death, _ = _run(jobs, took, workers, dies_at=bound / 2)
            left = lower_bound(real, hosts) * hosts / (hosts - 0.5)
            print(f"{models:>6} {hosts:>5} {name:<26} {makespan / bound:>13.3f} {idle:>6.1%}"
                  f" {after_death / left:>12.3f}")  # fmt: skip


def _job(rng: random.Random, number: int, workers: list[str], share: float) -> Job:
    seconds = rng.lognormvariate(4, 1)
    places = rng.sample(workers, 2) if rng.random() < share else ()
    return Job(model=str(number), seconds=seconds, workers=frozenset(places))


def _run(
    jobs: list[Job], took: dict[str, float], workers: list[str], dies_at: float = float("inf")
) -> tuple[float, float]:
    """Return the end of the last model and the share of time that workers were idle."""
    assignment = Assignment()
    assignment.add(jobs)
    for worker in workers:
        assignment.add_worker(worker)
    ahead = {worker: assignment.take(worker) for worker in workers}
    events: list[tuple[float, str]] = []
    running: dict[str, Job] = {}
    busy = ended = 0.0
    waiting = [(0.0, worker) for worker in workers]
    while waiting or events:
        while waiting:
            now, worker = waiting.pop()
            job = ahead.get(worker) or assignment.take(worker)
            if job is None:
                continue
            running[worker] = job
            busy += took[job.model]
            heappush(events, (now + took[job.model], worker))
            ahead[worker] = assignment.take(worker)
        if not events:
            break
        now, worker = heappop(events)
        if worker == workers[0] and now >= dies_at:
            lost = [running[worker], *filter(None, [ahead.pop(worker, None)])]
            assignment.remove_worker(worker)
            assignment.add(lost)
            idle = [each for each in workers[1:] if each not in {name for _, name in events}]
            waiting += [(now, each) for each in idle]
            dies_at = float("inf")
            continue
        ended = now
        waiting.append((now, worker))
    return ended, 1 - busy / (ended * len(workers))


if __name__ == "__main__":
    main()
