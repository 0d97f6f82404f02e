"""Schedules tests over pytest-xdist's workers so that no model is split between two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmstrix.plan.assignment import Assignment, Job

if TYPE_CHECKING:
    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController

_AHEAD = 2
"""A worker starts a test only when it knows the next one, or at shutdown."""


class WholeModels:
    """Assigns whole models to workers; all other tests are left to the scheduler `others`.

    The other tests come first. A worker with none of them left, and none to come, is sent the next
    model of `jobs` with all its tests, and a pause instead of the model after it, which is chosen
    when the worker has come to the pause. `others` sees each worker as a `_Part`.
    """

    def __init__(
        self,
        config: pytest.Config,
        others: Scheduling,
        model_of: Callable[[str], str | None],
        jobs: Mapping[str, Job],
        slot_of: Callable[[WorkerController], str] = lambda node: str(node.gateway.id),
    ) -> None:
        self.config = config  # pytest-rerunfailures reads it from a scheduler
        self._others = others
        self._model_of = model_of
        self._workers: dict[WorkerController, _Worker] = {}
        self._models: Sequence[str] | None = None
        """The tests of models, the same on all workers; `None` before the first collection."""
        self._jobs = jobs
        self._slot_of = slot_of
        self._queue = Assignment()
        self._places: dict[str, list[int]] = {}
        """Model in `_queue` -> the places in `_models` of its tests that no worker has yet."""
        self._started = False
        self._replacing = 0
        """Workers that died with tests of `others`, and whose replacements are not there yet."""

    @property
    def nodes(self) -> list[WorkerController]:
        return list(self._workers)

    @property
    def collection_is_completed(self) -> bool:
        return bool(self._others.collection_is_completed)

    @property
    def tests_finished(self) -> bool:
        return (
            self.collection_is_completed
            and not self._places
            and bool(self._others.tests_finished)
            and all(len(worker.pending) < _AHEAD for worker in self._workers.values())
        )

    @property
    def has_pending(self) -> bool:
        return (
            bool(self._places)
            or bool(self._others.has_pending)
            or any(worker.pending for worker in self._workers.values())
        )

    @property
    def left(self) -> list[str]:
        """The models with tests that no worker has."""
        return sorted(self._places)

    def add_node(self, node: WorkerController) -> None:
        worker = self._workers[node] = _Worker(node, self._slot_of(node))
        self._queue.add_worker(worker.slot)
        if not self.collection_is_completed:
            self._others.add_node(worker.part)
        elif self._replacing:
            self._replacing -= 1
            self._others.add_node(worker.part)
        else:
            worker.part.shutting_down = True

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        worker = self._workers[node]
        worker.collect(collection, self._model_of)
        models = [collection[index] for index in worker.models]
        if self._models is None:
            self._models = models
            self._put_back(range(len(models)))
        elif models != self._models:
            self._report_difference(node, models)
            self._drop_models()
        if worker.part in self._others.nodes:
            self._others.add_node_collection(worker.part, list(worker.part.tests))

    def schedule(self) -> None:
        workers = self._workers.values()
        if any(worker.part.tests for worker in workers):
            self._others.schedule()
            if not (self._started or any(worker.pending for worker in workers)):
                self._drop_models()  # the collections differ, which is reported
        self._started = True
        self._give_models()

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0
    ) -> None:
        worker = self._workers[node]
        worker.pending.remove(item_index)
        place = worker.part.place_of(item_index)
        if place is not None:
            self._others.mark_test_complete(worker.part, place, duration)
        self._give_models()

    def mark_test_pending(self, item: str) -> None:
        if self._model_of(item) is None:
            self._others.mark_test_pending(item)
        elif self._models is not None:
            self._put_back([self._models.index(item)])
        self._give_models()

    def remove_pending_tests_from_node(
        self, node: WorkerController, indices: Sequence[int]
    ) -> None:
        worker = self._workers[node]
        taken = set(indices)
        worker.pending = [index for index in worker.pending if index not in taken]
        places = [worker.part.place_of(index) for index in indices]
        self._others.remove_pending_tests_from_node(worker.part, places)
        self._give_models()

    def remove_node(self, node: WorkerController) -> str | None:
        """Return the test in which the worker died; its other tests go to other workers."""
        worker = self._workers.pop(node)
        died_in: str | None = None
        if worker.part in self._others.nodes:
            died_in = self._others.remove_node(worker.part)
            self._replacing += died_in is not None
        left = [index for index in worker.pending if worker.is_model(index)]
        if left and died_in is None and worker.pending[0] == left[0]:
            died_in = worker.tests[left.pop(0)]
        self._queue.remove_worker(worker.slot)
        self._put_back([worker.models.index(index) for index in left])
        self._give_models()
        return died_in

    def _put_back(self, places: Iterable[int]) -> None:
        """Queue tests that no worker has; those of a model stay together."""
        by_model: dict[str, list[int]] = {}
        for place in places:
            by_model.setdefault(self._model_of((self._models or ())[place]) or "", []).append(place)
        new = by_model.keys() - self._places.keys()
        self._queue.add(self._jobs.get(each) or Job(model=each) for each in by_model if each in new)
        for model, its in by_model.items():
            self._places[model] = its + self._places.get(model, [])

    def _drop_models(self) -> None:
        self._queue = Assignment()
        self._places.clear()
        for worker in self._workers.values():
            self._queue.add_worker(worker.slot)

    def _give_models(self) -> None:
        if not self._started:
            return
        free = [worker for worker in self._workers.values() if self._is_free(worker)]
        for worker in free:
            job = self._queue.take(worker.slot) if worker.waits else None
            if job is not None:
                worker.send([worker.models[place] for place in self._places.pop(job.model)])
        for worker in free:
            if not self._places:
                worker.node.shutdown()
            elif worker.pending and worker.pending[-1] != worker.pause:
                worker.send([worker.pause])

    def _is_free(self, worker: _Worker) -> bool:
        """Whether it has no more than one of the other tests left, and gets no more of them."""
        if not worker.tests or worker.node.shutting_down:
            return False
        if not (worker.part.shutting_down or self._others.tests_finished):
            return False
        later = worker.pending[1:2]  # models come last
        return not later or worker.part.place_of(later[0]) is None

    def _report_difference(self, node: WorkerController, models: Sequence[str]) -> None:
        from xdist.report import report_collection_diff

        first = next(iter(self._workers)).gateway.id
        report = pytest.CollectReport(
            nodeid=node.gateway.id,
            outcome="failed",
            longrepr=report_collection_diff(self._models, models, first, node.gateway.id),
            result=[],
        )
        self.config.hook.pytest_collectreport(report=report)


class _Worker:
    """A worker: what it has collected, and what it has been sent and not finished."""

    def __init__(self, node: WorkerController, slot: str) -> None:
        self.node = node
        self.slot = slot
        """Its name in the assignment; a replacement takes over that of a dead worker."""
        self.part = _Part(self)
        self.pending: list[int] = []
        self.tests: Sequence[str] = ()
        self.models: Sequence[int] = ()
        """Indices in `tests` of those of models."""

    @property
    def pause(self) -> int:
        """The index after all tests, at which a worker waits: `pauses.Pauses`."""
        return len(self.tests)

    @property
    def waits(self) -> bool:
        """Whether it has nothing to run."""
        return all(index == self.pause for index in self.pending)

    def is_model(self, index: int) -> bool:
        return index != self.pause and self.part.place_of(index) is None

    def collect(self, tests: Sequence[str], model_of: Callable[[str], str | None]) -> None:
        self.tests = tests
        others: list[int] = []
        models: list[int] = []
        for index, test in enumerate(tests):
            (others if model_of(test) is None else models).append(index)
        self.models = models
        self.part.collect(others)

    def send(self, indices: Sequence[int]) -> None:
        self.pending.extend(indices)
        self.node.send_runtest_some(list(indices))


class _Part:
    """A worker as the scheduler of the other tests sees it: it has collected these alone."""

    def __init__(self, worker: _Worker) -> None:
        self._worker = worker
        self._indices: Sequence[int] = ()
        self._places: Mapping[int, int] = {}
        self.shutting_down = False
        """Whether it gets no more of these tests."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker.node, name)

    @property
    def tests(self) -> list[str]:
        return [self._worker.tests[index] for index in self._indices]

    def collect(self, indices: Sequence[int]) -> None:
        self._indices = indices
        self._places = {index: place for place, index in enumerate(indices)}

    def place_of(self, index: int) -> int | None:
        """The index among the other tests; `None` for a test of a model."""
        return self._places.get(index)

    def send_runtest_some(self, places: Sequence[int]) -> None:
        self._worker.send([self._indices[place] for place in places])

    def send_runtest_all(self) -> None:
        self._worker.send(self._indices)

    def send_steal(self, places: Sequence[int]) -> None:
        self._worker.node.send_steal([self._indices[place] for place in places])

    def shutdown(self) -> None:
        self.shutting_down = True
