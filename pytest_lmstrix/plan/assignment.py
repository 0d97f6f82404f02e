"""Which worker tests which model next: the longest first, each where it may run. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

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
class _OwnJobs:
    """The jobs that only this worker and some others may run, the shortest first."""

    jobs: list[Job] = field(default_factory=list)
    seconds: float = 0.0
    """Its share of them: each worker that may run a job has the same part of it."""


class Assignment:
    """Hands out models to workers, one at a time, when a worker is free.

    It gets the longest model that it may run (list scheduling: Graham, "Bounds on multiprocessing
    timing anomalies", 1969). But models that only some workers may run come before the others, on
    a worker that would exceed its share of all that is left otherwise.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Job] = {}
        self._seconds = 0.0
        """Of all that wait."""
        self._anywhere: list[Job] = []
        """The jobs for any worker, the shortest first; here and below, some are taken already."""
        self._own: dict[str, _OwnJobs] = {}
        """By worker."""
        self._changed = False

    def add_worker(self, worker: str) -> None:
        """Use a worker, a new one or one that is back."""
        self._own.setdefault(worker, _OwnJobs())
        self._changed = True

    def remove_worker(self, worker: str) -> None:
        """Leave the jobs of a worker that is gone to the others."""
        self._own.pop(worker, None)
        self._changed = True

    def add(self, jobs: Iterable[Job]) -> None:
        """Add jobs, new ones or those that a worker did not finish."""
        self._waiting.update((job.model, job) for job in jobs)
        self._changed = True

    def take(self, worker: str) -> Job | None:
        """Return the next job for `worker`; `None` if those left are for others.

        A job whose own workers are all gone is for any worker.
        """
        if self._changed:
            self._sort()
        own, other = self._longest(self._own[worker].jobs), self._longest(self._anywhere)
        job = own or other
        if own and other and own.seconds < other.seconds:
            job = own if self._exceeds_share(worker, other) else other
        if job is not None:
            self._remove(job)
        return job

    def _exceeds_share(self, worker: str, job: Job) -> bool:
        """Whether `worker` has no room for `job` beside its own, and others have more room."""
        own = self._own[worker].seconds
        least = min(each.seconds for each in self._own.values())
        return own > least and own + job.seconds > self._seconds / len(self._own)

    def _longest(self, jobs: list[Job]) -> Job | None:
        while jobs and jobs[-1].model not in self._waiting:
            jobs.pop()
        return jobs[-1] if jobs else None

    def _remove(self, job: Job) -> None:
        del self._waiting[job.model]
        self._seconds -= job.seconds
        for worker in (places := self._own_workers(job)):
            self._own[worker].seconds -= job.seconds / len(places)

    def _own_workers(self, job: Job) -> frozenset[str]:
        """Return the workers that may run `job`; none if all may, or none of them is left."""
        places = job.workers & self._own.keys()
        return places if len(places) < len(self._own) else frozenset()

    def _sort(self) -> None:
        self._changed = False
        self._anywhere = []
        self._own = {worker: _OwnJobs() for worker in self._own}
        self._seconds = sum(job.seconds for job in self._waiting.values())
        # Of jobs that are equally long, the first one added is taken first.
        longest_first = sorted(self._waiting.values(), key=lambda each: -each.seconds)
        for job in reversed(longest_first):
            places = self._own_workers(job)
            for worker in places:
                self._own[worker].jobs.append(job)
                self._own[worker].seconds += job.seconds / len(places)
            if not places:
                self._anywhere.append(job)


def lower_bound(jobs: Collection[Job], workers: int) -> float:
    """Return the seconds that no plan can stay below: the mean of the workers, or one job."""
    if not jobs:
        return 0.0
    return max(sum(job.seconds for job in jobs) / workers, *(job.seconds for job in jobs), 0.0)
