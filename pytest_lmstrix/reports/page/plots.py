"""Plots of speed and memory by context size, as SVG without scripts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from math import ceil, floor, isfinite, log2, log10
from statistics import quantiles

from msgspec import Struct

from pytest_lmstrix.core.formatting import memory, rate, seconds, tokens
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.reports.templates import templates

MOST_CURVES = 10
"""With more models than this, quantiles of the fleet are drawn instead of a curve each."""
LEAST_MODELS = 4
"""Least number of models with a value for quantiles at a size."""
LOG_FACTOR = 20
"""Values with a larger ratio than this are drawn on a logarithmic scale."""
_FULLER = ("fast", "full", "deep")


class Metric(Struct, frozen=True, kw_only=True):
    """The subject of a plot."""

    title: str
    value: Callable[[Result], float | None]
    format: Callable[[float], str]
    """Formats a value for tooltips."""
    units: tuple[tuple[float, str], ...]
    """Factors and their units for the axis, largest first."""


_COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
METRICS = (
    Metric(
        title="Decode, tokens/s",
        value=lambda r: r.decode_tokens_per_second,
        format=rate,
        units=_COUNTS,
    ),
    Metric(
        title="Prefill, tokens/s",
        value=lambda r: r.prefill_tokens_per_second,
        format=rate,
        units=_COUNTS,
    ),
    Metric(
        title="Time to first token",
        value=lambda r: r.ttft_seconds,
        format=seconds,
        units=((1.0, " s"), (1e-3, " ms"), (1e-6, " µs")),
    ),
    Metric(
        title="Peak memory",
        value=lambda r: r.peak_memory_bytes,
        format=lambda value: memory(round(value)),
        units=((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1.0, " B")),
    ),
)

Curves = dict[str, dict[int, float]]
"""Name -> size in tokens -> value."""


def plot_checks(results: Iterable[Result]) -> tuple[str, list[Result]]:
    """Return the check to plot, and its passed results."""
    good = [result for result in results if result.verdict is Verdict.OK]
    check = _fullest(good)
    return check, [result for result in good if result.check == check]


def plot(metric: Metric, check: str, results: Iterable[Result]) -> str:
    """Return the SVG of `metric`; empty without values."""
    curves = _curves(results, metric)
    return _svg(f"{metric.title} ({check})", metric, curves) if curves else ""


def _fullest(results: Iterable[Result]) -> str:
    """Return the check that fills most context among those common to half of the models."""
    models: dict[str, set[str]] = defaultdict(set)
    for result in results:
        models[result.check].add(result.model)
    half = max((len(ids) for ids in models.values()), default=0) / 2
    usual = (check for check in models if len(models[check]) >= half)
    return max(usual, key=lambda check: check in _FULLER and _FULLER.index(check), default="")


def _curves(results: Iterable[Result], metric: Metric) -> Curves:
    curves: Curves = defaultdict(dict)
    for result in results:
        value = metric.value(result)
        if value is not None and _is_drawable(value):
            curves[one_line(result.model, 60)][result.context_length] = value
    return dict(curves) if len(curves) <= MOST_CURVES else _spread(curves)


def _spread(curves: Curves) -> Curves:
    """Return the outer deciles, the quartiles and the median of all curves."""
    at: dict[int, list[float]] = defaultdict(list)
    for curve in curves.values():
        for size, value in curve.items():
            at[size].append(value)
    names = {"highest tenth": 17, "highest quarter": 14, "median": 9, "lowest quarter": 4,
             "lowest tenth": 1}  # fmt: skip
    cuts = {size: quantiles(values, n=20, method="inclusive")
            for size, values in at.items() if len(values) >= LEAST_MODELS}  # fmt: skip
    return {name: {size: cut[place] for size, cut in cuts.items()}
            for name, place in names.items()} if cuts else {}  # fmt: skip


def _is_drawable(value: float) -> bool:
    try:
        return isfinite(value) and value >= 0
    except OverflowError:  # an integer beyond every float
        return False


WIDTH, LEFT, RIGHT, TOP, PLOT_HEIGHT = 640, 76, 24, 40, 240
LEGEND_LINE = 20
LABEL_GAP = 70
"""Least distance of two size labels."""


class Scale(Struct, frozen=True, kw_only=True):
    """Maps any value to a position, linearly or logarithmically; clamps to the range."""

    low: float
    high: float
    start: float
    """Position of `low`."""
    end: float
    logarithmic: bool

    def __call__(self, value: float) -> float:
        low, high = self._height(self.low), self._height(self.high)
        share = (self._height(value) - low) / (high - low) if high > low else 0.5
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))

    def _height(self, value: float) -> float:
        if not self.logarithmic:
            return value
        return log2(value) if value > 0 else log2(self.low)


def _svg(title: str, metric: Metric, curves: Curves) -> str:
    sizes = sorted({size for curve in curves.values() for size in curve})
    values = [value for curve in curves.values() for value in curve.values()]
    marks = ticks(min(values), max(values))
    bottom = TOP + PLOT_HEIGHT
    x = Scale(
        low=sizes[0], high=sizes[-1], start=LEFT + 12, end=WIDTH - RIGHT - 12, logarithmic=True
    )
    y = Scale(low=marks[0], high=marks[-1], start=bottom, end=TOP, logarithmic=marks[0] > 0)
    views = [
        {
            "name": name,
            "color": _COLORS[place % len(_COLORS)],
            "dashes": _DASHES[place % len(_DASHES)],  # distinct without colours, too
            "x": LEFT + (WIDTH - LEFT - RIGHT) / 2 * (place % 2),
            "y": bottom + 46 + LEGEND_LINE * (place // 2),
            "points": [
                (x(size), y(value), f"{name} at {tokens(size)}: {metric.format(value)}")
                for size, value in sorted(curve.items())
            ],
        }
        for place, (name, curve) in enumerate(curves.items())
    ]
    legend = LEGEND_LINE * ceil(len(curves) / 2) + 14 if len(curves) > 1 else 0
    return _TEMPLATES.get_template("plot.svg.jinja").render(
        title=title,
        width=WIDTH,
        height=bottom + 32 + legend,
        left=LEFT,
        right=WIDTH - RIGHT,
        bottom=bottom,
        sizes=[(x(size), _size_label(size)) for size in _apart(sizes, x)],
        marks=[(y(mark), tick_label(mark, metric)) for mark in marks],
        curves=views,
    )


def ticks(low: float, high: float) -> list[float]:
    """Return at least two ascending round values that enclose `low` to `high`.

    They start at 0, or above it for a logarithmic scale.
    """
    if low > 0 and high / low > LOG_FACTOR:
        return _log_ticks(low, high)
    step = _round_up(high / 6) if high > 0 else 1.0
    count = max(1, ceil(high / step - 1e-9))
    return [_round_value(step * place) for place in range(count + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = floor(log10(low) + 1e-9), ceil(log10(high) - 1e-9)
    if last - first > 3:
        stride = ceil((last - first) / 8)
        return [_power(1, each) for each in range(first, last + stride, stride)]
    steps = [_power(digit, each) for each in range(first, last + 1) for digit in (1, 2, 5)]
    start = max((place for place, step in enumerate(steps) if step <= low), default=0)
    end = min((place for place, step in enumerate(steps) if step >= high), default=len(steps) - 1)
    return steps[start : end + 1]


def _round_up(value: float) -> float:
    """Return the smallest 1, 2 or 5 times a power of ten that is at least `value`."""
    power = floor(log10(value))
    candidates = [_power(digit, each) for each in (power, power + 1) for digit in (1, 2, 5)]
    return next((each for each in candidates if each >= value), candidates[-1])


def _power(digit: int, exponent: int) -> float:
    return float(f"{digit}e{exponent}")


def _round_value(value: float) -> float:
    """Remove floating-point noise, as in 0.30000000000000004."""
    return float(f"{value:.6g}")


def tick_label(value: float, metric: Metric) -> str:
    """Return a short label, `500 µs`, `20k`, `8 GB`; scientific beyond the units."""
    if value == 0:
        return "0"
    factor, unit = next(
        (each for each in metric.units if value >= each[0] * 0.9999), metric.units[-1]
    )
    return f"{value / factor:.6g}{unit}" if 1e-3 <= value / factor < 1e5 else f"{value:.3g}"


def _size_label(size: int) -> str:
    return f"{size / 1000:g}k" if size % 1000 == 0 else tokens(size)


def _apart(sizes: list[int], x: Scale) -> list[int]:
    """Return the sizes whose labels do not overlap."""
    kept: list[int] = []
    for size in reversed(sizes):
        if not kept or x(kept[-1]) - x(size) >= LABEL_GAP:
            kept.append(size)
    return kept[::-1]


_TEMPLATES = templates("page")
_DASHES = ("none", "6,3", "2,2")
# Medium lightness: visible on white and on black.
_COLORS = (
    *("#2f7ed8", "#d9672c", "#2a9d62", "#b455c9", "#b8860b"),
    *("#d6437b", "#17a2b8", "#7a6ff0", "#8a9a1f", "#8d8d94"),
)
