"""Plots: ticks, scales and labels for any value, and valid curves."""

from __future__ import annotations

from itertools import pairwise
from math import isfinite
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.reports.page.plots import (
    METRICS,
    Metric,
    Scale,
    plot,
    plot_checks,
    tick_label,
    ticks,
)
from tests.registry.results import a_result

TTFT = METRICS[2]
VALUES = st.floats(min_value=1e-12, max_value=1e21) | st.just(0.0)


def drawn(metric: Metric, *results: object) -> str:
    check, passed = plot_checks(results)  # type: ignore[arg-type]
    return plot(metric, check, passed)


@given(st.lists(VALUES, min_size=1, max_size=20))
def test_ticks_ascend_and_enclose_every_value(values: list[float]) -> None:
    marks = ticks(min(values), max(values))
    assert 2 <= len(marks) <= 12
    assert all(low < high for low, high in pairwise(marks))
    assert marks[0] <= min(values) * (1 + 1e-6)
    assert marks[-1] >= max(values) * (1 - 1e-6)


@given(st.lists(VALUES, min_size=1, max_size=20))
def test_every_value_is_within_its_scale(values: list[float]) -> None:
    marks = ticks(min(values), max(values))
    scale = Scale(low=marks[0], high=marks[-1], start=280, end=40, logarithmic=marks[0] > 0)
    assert all(isfinite(scale(value)) and 40 <= scale(value) <= 280 for value in values)


@given(VALUES, VALUES)
def test_tick_labels_are_short_and_distinct(first: float, second: float) -> None:
    for metric in METRICS:
        labels = [tick_label(mark, metric) for mark in ticks(*sorted((first, second)))]
        assert all(0 < len(label) <= 10 for label in labels)
        assert len(set(labels)) == len(labels)


@given(
    st.lists(
        st.tuples(VALUES, st.integers(1, 10_000_000), st.sampled_from("abcdefghijklmn")),
        max_size=40,
    )
)
def test_plots_of_any_values_are_well_formed(points: list[tuple[float, int, str]]) -> None:
    results = [
        a_result(size, model=model, ttft_seconds=value, peak_memory_bytes=int(value))
        for value, size, model in points
    ]
    for metric in METRICS:
        if svg := drawn(metric, *results):
            ElementTree.fromstring(svg)


def test_ttfts_of_half_a_millisecond_and_of_fifty_are_plotted() -> None:
    results = [a_result(512, ttft_seconds=0.0005), a_result(1_024, ttft_seconds=0.05)]
    svg = drawn(TTFT, *results)
    assert ">500 µs</text>" in svg
    assert ">50 ms</text>" in svg


def test_results_without_a_value_have_no_plot() -> None:
    assert drawn(TTFT) == ""
    assert drawn(TTFT, a_result(512, ttft_seconds=None)) == ""


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_equal_and_single_values_are_plotted(value: float) -> None:
    for sizes in ((512,), (512, 1_024)):
        svg = drawn(TTFT, *(a_result(size, ttft_seconds=value) for size in sizes))
        assert svg.count("<circle") == len(sizes)


def test_model_names_are_escaped_in_plots() -> None:
    results = [a_result(512, model=name, ttft_seconds=1.0) for name in ("<script>", "b")]
    assert "<script>" not in drawn(TTFT, *results)
