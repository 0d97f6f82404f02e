"""Who runs what under pytest-xdist, with its own schedulers and workers without processes."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from xdist import scheduler as schedulers

from pytest_lmstrix.hooks.xdist.controller import model_in
from pytest_lmstrix.hooks.xdist.scheduler import WholeModels

MODES = {
    "load": schedulers.LoadScheduling,
    "loadscope": schedulers.LoadScopeScheduling,
    "loadfile": schedulers.LoadFileScheduling,
    "loadgroup": schedulers.LoadGroupScheduling,
    "worksteal": schedulers.WorkStealingScheduling,
    "each": schedulers.EachScheduling,
}
IDS = [f"m{number}" for number in range(7)]
MODELS = {f"{each}-{size}": each for each in IDS for size in (512, 1024)}
OTHERS = [f"test_{file}.py::test_{test}@{file}" for file in "abc" for test in range(9)]
TESTS = [f"models.yaml::test_full[{case}]" for case in MODELS]


def model_of(test: str) -> str | None:
    return model_in(test, MODELS)


class Node:
    """A worker that runs one test when it knows the next, or that there is none."""

    def __init__(self, run: Run, name: str) -> None:
        self.gateway = SimpleNamespace(id=name, spec="popen")
        self.shutting_down = False
        self.queue: list[int] = []
        self.done: list[str] = []
        self._run = run

    def send_runtest_some(self, indices: list[int]) -> None:
        self.queue.extend(indices)

    def send_steal(self, indices: list[int]) -> None:
        taken = [index for index in self.queue[2:] if index in indices]
        self.queue = [index for index in self.queue if index not in taken]
        self._run.stolen.append((self, taken))

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def can_run(self) -> bool:
        return len(self.queue) >= 2 or (self.shutting_down and bool(self.queue))


class Run:
    """A run of `tests`, whose workers take turns at random."""

    def __init__(self, mode: str, tests: list[str], workers: int, seed: int = 0) -> None:
        self.tests = tests
        self.stolen: list[tuple[Node, list[int]]] = []
        self.problems: list[str] = []
        hook = SimpleNamespace(
            pytest_collectreport=lambda report: self.problems.append(report.longrepr)
        )
        config: Any = SimpleNamespace(
            getoption=lambda name: None,
            getvalue=lambda name: ["popen"] * workers,
            hook=hook,
            option=SimpleNamespace(loadscopereorder=True),
        )
        others = MODES[mode](config, _Silent())
        self.scheduler = WholeModels(config, others, model_of, {})
        self._random = random.Random(seed)
        self.nodes = [self.add(f"gw{number}") for number in range(workers)]

    def add(self, name: str) -> Node:
        node = Node(self, name)
        self.scheduler.add_node(node)
        return node

    def start(self) -> None:
        for node in self.nodes:
            self.scheduler.add_node_collection(node, self.tests)
        self.scheduler.schedule()

    def finish(self) -> None:
        """All that is left; each step is one test, or an answer to a theft."""
        while self.step():
            pass
        assert self.scheduler.tests_finished
        for node in self.nodes:
            node.shutdown()
        while self.step():
            pass
        assert not self.scheduler.has_pending
        for node in self.nodes:
            assert self.scheduler.remove_node(node) is None

    def step(self) -> bool:
        if self.stolen:
            node, indices = self.stolen.pop(0)
            self.scheduler.remove_pending_tests_from_node(node, indices)
            return True
        ready = [node for node in self.nodes if node.can_run]
        if not ready:
            return False
        node = self._random.choice(ready)
        test = self.next_test(node)
        index = node.queue.pop(0)
        if test is not None:
            node.done.append(test)
        self.scheduler.mark_test_complete(node, index)
        return True

    def next_test(self, node: Node) -> str | None:
        """Return what the worker runs now; `None` for a pause."""
        return None if node.queue[0] == len(self.tests) else self.tests[node.queue[0]]

    def crash(self, node: Node) -> None:
        """The worker dies in its first test, and another one takes its place."""
        assert self.scheduler.remove_node(node) == self.next_test(node)
        self.nodes.remove(node)
        new = self.add(f"{node.gateway.id}x")
        self.nodes.append(new)
        self.scheduler.add_node_collection(new, self.tests)
        self.scheduler.schedule()

    @property
    def done(self) -> Counter[str]:
        return Counter(test for node in self.nodes for test in node.done)


class _Silent:
    """What xdist logs to."""

    def __getattr__(self, name: str) -> _Silent:
        return self

    def __call__(self, *args: object) -> None:
        pass


def places(run: Run, group_of: Any) -> dict[str, set[str]]:
    """The workers of each group of tests."""
    found: dict[str, set[str]] = {}
    for node in run.nodes:
        for test in node.done:
            found.setdefault(group_of(test), set()).add(node.gateway.id)
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("workers", [1, 2, 3, 12])
@pytest.mark.parametrize("mode", MODES)
def test_no_model_is_split_and_every_test_runs(mode: str, workers: int, seed: int) -> None:
    run = Run(mode, OTHERS + TESTS, workers, seed)
    run.start()
    run.finish()
    times = workers if mode == "each" else 1
    assert run.done == Counter({**dict.fromkeys(OTHERS, times), **dict.fromkeys(TESTS, 1)})
    models = places(run, lambda test: model_of(test) or test)
    assert all(len(models[each]) == 1 for each in IDS)
    if mode in ("loadfile", "loadscope", "loadgroup"):
        files = places(run, lambda test: test.partition("::")[0])
        assert all(len(files[f"test_{each}.py"]) == 1 for each in "abc")
    for node in run.nodes:
        kinds = [model_of(test) is not None for test in node.done]
        assert kinds == sorted(kinds)


@pytest.mark.parametrize("tests", [TESTS, OTHERS, TESTS[:1], TESTS[:3], OTHERS[:1], []])
@pytest.mark.parametrize("mode", MODES)
def test_models_alone_and_others_alone(mode: str, tests: list[str]) -> None:
    run = Run(mode, tests, 2)
    run.start()
    run.finish()
    times = 2 if mode == "each" and tests and tests[0] in OTHERS else 1
    assert run.done == Counter(dict.fromkeys(tests, times))


def test_models_are_spread_over_the_workers_at_once() -> None:
    run = Run("load", ["models.yaml::test_fast[m0-512]", "models.yaml::test_fast[m1-512]"], 2)
    run.start()
    assert [len(node.queue) for node in run.nodes] == [1, 1]
    run.finish()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mode", MODES)
def test_a_worker_that_dies_in_a_model_costs_that_test_alone(mode: str, seed: int) -> None:
    run = Run(mode, OTHERS + TESTS, 2, seed)
    run.start()
    while True:
        ready = [node for node in run.nodes if node.can_run]
        dying = [node for node in ready if model_of(run.next_test(node) or "")]
        if dying:
            break
        assert run.step()
    lost = run.next_test(dying[0])
    done_before = run.done
    run.crash(dying[0])
    run.finish()
    models = Counter(test for test in (done_before | run.done) if model_of(test))
    assert models == Counter(dict.fromkeys([test for test in TESTS if test != lost], 1))


@pytest.mark.parametrize("seed", range(5))
def test_a_worker_that_dies_in_another_test_leaves_no_model_untested(seed: int) -> None:
    run = Run("load", OTHERS + TESTS, 2, seed)
    run.start()
    for _ in range(seed * 4):
        run.step()
    dying = next(node for node in run.nodes if node.can_run)
    lost, done_before = run.next_test(dying), run.done
    run.crash(dying)
    run.finish()
    assert set(OTHERS + TESTS) - set(done_before | run.done) == {lost}


def test_a_worker_that_dies_between_two_models_costs_no_test() -> None:
    run = Run("load", TESTS, 1)
    run.start()
    while run.next_test(run.nodes[0]) is not None:
        assert run.step()
    done_before = run.done
    run.crash(run.nodes[0])
    run.finish()
    assert done_before + run.done == Counter(TESTS)


def test_the_next_model_is_chosen_when_a_worker_has_ended_one() -> None:
    run = Run("load", TESTS, 2)
    run.start()
    first, second = run.nodes
    while second.can_run:
        if (test := run.next_test(second)) is not None:
            second.done.append(test)
        run.scheduler.mark_test_complete(second, second.queue.pop(0))
    begun = {model_of(run.next_test(first) or "")}
    assert {model_of(test) for test in second.done} == {*IDS} - begun


def test_workers_that_collect_other_models_are_reported_and_run_none() -> None:
    run = Run("load", OTHERS + TESTS, 2)
    run.scheduler.add_node_collection(run.nodes[0], OTHERS + TESTS)
    run.scheduler.add_node_collection(run.nodes[1], OTHERS + TESTS[:-1])
    run.scheduler.schedule()
    run.finish()
    (problem,) = run.problems
    assert "Different tests were collected between gw0 and gw1" in problem
    assert set(run.done) == set(OTHERS)


def test_workers_that_collect_other_tests_are_reported_and_run_no_model() -> None:
    run = Run("load", OTHERS + TESTS, 2)
    run.scheduler.add_node_collection(run.nodes[0], OTHERS + TESTS)
    run.scheduler.add_node_collection(run.nodes[1], OTHERS[1:] + TESTS)
    run.scheduler.schedule()
    run.finish()
    assert len(run.problems) == 1
    assert not run.done


def test_a_test_that_is_to_run_again_does() -> None:
    run = Run("load", OTHERS + TESTS, 2)
    run.start()
    run.scheduler.mark_test_pending(TESTS[0])
    run.scheduler.mark_test_pending(OTHERS[0])
    run.finish()
    assert run.done[TESTS[0]] == run.done[OTHERS[0]] == 2
