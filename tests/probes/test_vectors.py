"""Similarities and distances of vectors, by their laws."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_lmstrix.probes.vectors import cosine, norm, relative_distance

numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
pairs = st.integers(1, 8).flatmap(
    lambda size: st.tuples(*[st.lists(numbers, min_size=size, max_size=size)] * 2)
)


@given(pairs, st.floats(0.01, 100))
def test_similarity_is_symmetric_and_ignores_length(
    pair: tuple[list[float], list[float]], factor: float
) -> None:
    one, other = pair
    assume(norm(one) and norm(other))
    similarity = cosine(one, other)
    assert -1 <= similarity <= 1
    assert similarity == pytest.approx(cosine(other, one))
    assert similarity == pytest.approx(cosine([factor * value for value in one], other), abs=1e-9)
    assert cosine(one, one) == pytest.approx(1)
    assert cosine(one, [-value for value in one]) == pytest.approx(-1)


@given(pairs)
def test_distance_is_0_for_the_same_alone(pair: tuple[list[float], list[float]]) -> None:
    one, other = pair
    assert (relative_distance(one, other) == 0) == (one == other)
    assert 0 <= relative_distance(one, other) == relative_distance(other, one) <= 2 + 1e-9


@pytest.mark.parametrize("other", [[1.0], [0.0, 0.0], [math.inf, 1.0], [math.nan, 1.0]])
def test_a_vector_without_a_direction_has_no_similarity(other: list[float]) -> None:
    with pytest.raises(ValueError, match="angle"):
        cosine([1.0, 2.0], other)
