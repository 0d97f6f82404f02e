"""Which worker tests which model next: the longest first, each where it may run. Pure.

Each model is planned for the worker on which it would end first, the longest models first (Graham,
"Bounds on multiprocessing timing anomalies", 1969). A worker that has none left takes over from the
one with most left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from msgspec import Struct


class Job(Struct, frozen=True, kw_only=True):
    """A model to test, with all its sizes."""

    model: str
    seconds: float = 0.0
    """Expected duration; only the ratios between models matter."""
    workers: frozenset[str] = frozenset()
    """Where it may run; empty: anywhere."""

    def may_run_on(self, worker: str) -> bool:
        return not self.workers or worker in self.workers


@dataclass
class _Queue:
    """The jobs planned for a worker, the shortest first: the next one is at the end."""

    jobs: list[Job] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, job: Job) -> None:
        self.jobs.append(job)
        self.seconds += job.seconds

    def take(self, place: int) -> Job:
        job = self.jobs.pop(place)
        self.seconds -= job.seconds
        return job


class Assignment:
    """Hands out models to workers, one at a time."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._unplanned: list[Job] = []
        """New jobs, and those that none of the workers may run."""
        self._changed = False

    def add_worker(self, worker: str) -> None:
        """Use a worker, a new one or one that is back."""
        self._queues.setdefault(worker, _Queue())
        self._changed = True

    def remove_worker(self, worker: str) -> None:
        """Leave the jobs of a worker that is gone to the others."""
        if queue := self._queues.pop(worker, None):
            self.add(queue.jobs)

    def add(self, jobs: Iterable[Job]) -> None:
        """Add jobs, new ones or those that a worker did not finish."""
        self._unplanned += jobs
        self._changed = True

    def take(self, worker: str) -> Job | None:
        """Return the next job for `worker`; `None` if those left are for others.

        A job whose own workers are all gone is for any worker.
        """
        if self._changed:
            self._plan()
        queue = self._queues[worker]
        if queue.jobs:
            return queue.take(-1)
        for other in sorted(self._queues.values(), key=lambda each: -each.seconds):
            for place in range(len(other.jobs) - 1, -1, -1):
                if other.jobs[place].may_run_on(worker):
                    return other.take(place)
        return self._unplanned.pop(0) if self._unplanned else None

    def _plan(self) -> None:
        self._changed = False
        jobs, self._unplanned = self._unplanned, []
        for queue in self._queues.values():
            jobs += queue.jobs
            queue.jobs, queue.seconds = [], 0.0
        heap = [(0.0, worker) for worker in self._queues]
        for job in sorted(jobs, key=lambda each: -each.seconds):
            worker = _first_to_end(heap, job)
            if worker is None:
                self._unplanned.append(job)
            else:
                self._queues[worker].add(job)
                heappush(heap, (self._queues[worker].seconds, worker))
        for queue in self._queues.values():
            queue.jobs.reverse()


def _first_to_end(heap: list[tuple[float, str]], job: Job) -> str | None:
    """Take from the heap the worker with the shortest queue of those that may run `job`."""
    others = []
    found = None
    while heap and found is None:
        entry = heappop(heap)
        if job.may_run_on(entry[1]):
            found = entry[1]
        else:
            others.append(entry)
    for entry in others:
        heappush(heap, entry)
    return found


def lower_bound(jobs: Collection[Job], workers: int) -> float:
    """Return the seconds that no plan can stay below: the mean of the workers, or one job."""
    if not jobs:
        return 0.0
    return max(sum(job.seconds for job in jobs) / workers, *(job.seconds for job in jobs), 0.0)
