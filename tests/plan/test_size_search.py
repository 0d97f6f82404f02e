from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.plan.size_search import (
    FLOOR,
    MOST_LOADS,
    SizeSearch,
    search_below,
    search_up_to,
    steps_down,
    tolerance,
)


class Model:
    """Works up to `capacity`, and records the sizes tried."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.asked: list[int] = []

    def finish(self, search: SizeSearch) -> int | None:
        while (size := search.next_size) is not None:
            self.asked.append(size)
            search.add_result(size <= self.capacity)
        return search.answer


def stepping_down(size: int, capacity: int) -> int | None:
    """The result of trying successive 10 % reductions."""
    return next((step for step in steps_down(size) if step <= capacity), None)


def test_steps_are_exact() -> None:
    assert steps_down(60_000)[:3] == [54_000, 48_600, 43_740]
    assert steps_down(60_000)[-1] >= FLOOR > steps_down(60_000)[-1] * 9 // 10
    assert steps_down(4_551) == []
    assert steps_down(4_552) == [4_096]


@given(st.integers(4_096, 132_000), st.integers(0, 132_000))
def test_the_search_agrees_with_stepping_down(size: int, capacity: int) -> None:
    model = Model(min(capacity, size - 1))
    assert model.finish(search_below(size)) == stepping_down(size, model.capacity)
    assert len(model.asked) <= MOST_LOADS
    assert len(set(model.asked)) == len(model.asked)


@given(st.data(), st.integers(5_000, 2**31 - 1))
def test_the_search_does_not_go_below_a_known_good_size(data: st.DataObject, size: int) -> None:
    known = data.draw(st.integers(1, size - 1))
    model = Model(data.draw(st.integers(known, size - 1)))
    found = model.finish(search_below(size, known_good=known))
    assert found is not None
    assert known <= found <= model.capacity
    assert len(model.asked) <= MOST_LOADS
    assert all(known < asked < size for asked in model.asked)
    steps = steps_down(size, max(known, FLOOR - 1))
    if len(steps) < 2**MOST_LOADS:
        assert found == next((step for step in steps if step <= model.capacity), known)


def test_the_floor_is_tried_first_and_can_end_the_search() -> None:
    model = Model(100)
    assert model.finish(search_below(60_000)) is None
    assert model.asked == [steps_down(60_000)[-1]]


def test_a_working_granted_context_ends_the_search() -> None:
    model = Model(8_192)
    assert model.finish(search_below(16_384, granted=8_192)) == 8_192
    assert model.asked == [8_192]


@pytest.mark.parametrize("granted", [4_095, 16_384, 20_000])
def test_a_granted_context_outside_the_range_is_not_tried(granted: int) -> None:
    model = Model(10_000)
    assert model.finish(search_below(16_384, granted=granted)) == stepping_down(16_384, 10_000)
    assert granted not in model.asked


@given(st.integers(1, 200_000), st.integers(1, 250_000))
def test_the_limit_is_found_within_its_tolerance(limit: int, capacity: int) -> None:
    model = Model(capacity)
    found = model.finish(search_up_to(limit=limit))
    truth = min(limit, capacity)
    assert all(1 <= asked <= limit for asked in model.asked)
    if found is None:
        assert truth <= tolerance(0)
    else:
        assert found <= truth <= found + tolerance(found)
        assert found in model.asked


@given(st.data(), st.integers(1_000, 200_000))
def test_known_results_save_probes(data: st.DataObject, limit: int) -> None:
    capacity = data.draw(st.integers(500, limit))
    good = data.draw(st.integers(1, capacity))
    bad = data.draw(st.integers(capacity + 1, limit + 1))
    model = Model(capacity)
    found = model.finish(search_up_to(good=good, bad=bad, limit=limit))
    assert found is not None
    assert found <= capacity <= found + tolerance(found)
    assert all(good < asked <= limit for asked in model.asked)
    if bad <= limit:
        assert all(asked < bad for asked in model.asked)


@given(st.integers(4_096, 200_000), st.integers(0, 200_000), st.integers(1, 200_000))
def test_an_estimate_never_changes_what_a_search_up_to_finds(
    limit: int, capacity: int, estimated: int
) -> None:
    found = Model(capacity).finish(search_up_to(limit, estimated=estimated)) or 0
    assert found <= capacity
    assert min(limit, capacity) - found <= tolerance(found)


def test_a_search_up_to_starts_at_the_estimated_size() -> None:
    model = Model(40_000)
    found = model.finish(search_up_to(131_072, estimated=39_936))
    assert model.asked[:2] == [39_936, 131_072]
    assert found is not None
    assert 39_936 <= found <= 40_000


@given(st.integers(4_096, 200_000), st.integers(0, 200_000), st.integers(1, 200_000))
def test_an_estimate_never_makes_a_search_below_answer_what_fails(
    size: int, capacity: int, estimated: int
) -> None:
    model = Model(min(capacity, size - 1))
    found = model.finish(search_below(size, estimated=estimated))
    assert found is None or found <= capacity
    assert len(model.asked) == len(set(model.asked)) <= MOST_LOADS
    if found is None:
        assert stepping_down(size, model.capacity) is None


def test_a_right_estimate_saves_loads_below_a_failure() -> None:
    with_estimate, without = Model(60_000), Model(60_000)
    found = with_estimate.finish(search_below(131_072, estimated=60_000))
    assert found == without.finish(search_below(131_072)) == stepping_down(131_072, 60_000)
    assert with_estimate.asked[0] == found
    assert len(with_estimate.asked) < len(without.asked)


def test_a_bad_size_below_a_good_one_is_ignored() -> None:
    model = Model(90_000)
    found = model.finish(search_up_to(good=60_000, bad=30_000, limit=131_072))
    assert found is not None
    assert found <= 90_000 <= found + tolerance(found)


@given(st.integers(1, 1_000), st.integers(1, 200_000), st.integers(1, 250_000))
def test_an_untried_model_has_no_result(bad: int, limit: int, capacity: int) -> None:
    model = Model(capacity)
    found = model.finish(search_up_to(bad=bad, limit=limit))
    assert model.asked
    assert found is None or found in model.asked
