"""Curves of speed and memory against context size, as SVG without scripts."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import ceil, log2
from statistics import quantiles

from msgspec import Struct

from pytest_lmstrix.core.formatting import memory, rate, seconds, tokens
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict


@contextmanager
def _imports_as_they_were() -> Iterator[None]:
    """Undo what pygal does to the import system, of which nothing is needed here.

    It adds a finder for its maps that Python warns of at every later import, and a backport of
    `importlib.metadata` that switches off the standard library's finder of installed packages.
    """
    finders = sys.meta_path[:]
    name = "importlib_metadata"
    borrowed = sys.modules.setdefault(name, importlib.metadata) is importlib.metadata
    try:
        yield
    finally:
        sys.meta_path[:] = finders
        if borrowed:
            del sys.modules[name]


with _imports_as_they_were():
    import pygal
    from pygal.style import Style

MOST_CURVES = 10
"""With more models than that, the spread of the fleet is drawn instead of each of them."""
LEAST_MODELS = 4
"""The spread is drawn at sizes that so many models have a value for."""
_FULLER = ("fast", "full", "deep")


class Plot(Struct, frozen=True, kw_only=True):
    """What a plot shows."""

    title: str
    value: Callable[[Result], float | None]
    format: Callable[[float], str]


PLOTS = (
    Plot(title="Decode, tokens/s", value=lambda r: r.decode_tokens_per_second, format=rate),
    Plot(title="Prefill, tokens/s", value=lambda r: r.prefill_tokens_per_second, format=rate),
    Plot(title="Time to first token", value=lambda r: r.ttft_seconds, format=seconds),
    Plot(title="Peak memory", value=lambda r: r.peak_memory_bytes,
            format=lambda value: memory(round(value))),
)  # fmt: skip

Curves = dict[str, dict[int, float]]
"""Name -> size in tokens -> value."""


def plots(results: Iterable[Result]) -> list[str]:
    """An SVG for each measure that there are values of, all of one check."""
    good = [result for result in results if result.verdict is Verdict.OK]
    check = _fullest(good)
    asked = [result for result in good if result.check == check]
    drawn = ((measure, _curves(asked, measure)) for measure in PLOTS)
    return [_svg(f"{measure.title} ({check})", measure, curves)
            for measure, curves in drawn if curves]  # fmt: skip


def _fullest(results: Iterable[Result]) -> str:
    """The check that fills most of the context, of those that half of the models had."""
    models: dict[str, set[str]] = defaultdict(set)
    for result in results:
        models[result.check].add(result.model)
    half = max((len(had) for had in models.values()), default=0) / 2
    usual = (check for check in models if len(models[check]) >= half)
    return max(usual, key=lambda check: check in _FULLER and _FULLER.index(check), default="")


def _curves(results: Iterable[Result], measure: Plot) -> Curves:
    curves: Curves = defaultdict(dict)
    for result in results:
        value = measure.value(result)
        if value is not None:
            curves[one_line(result.model, 60)][result.context_length] = value
    return dict(curves) if len(curves) <= MOST_CURVES else _spread(curves)


def _spread(curves: Curves) -> Curves:
    """The ten percent marks, quartiles and median of a fleet."""
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


def _svg(title: str, measure: Plot, curves: Curves) -> str:
    sizes = sorted({size for curve in curves.values() for size in curve})
    values = [value for curve in curves.values() for value in curve.values()]
    ticks = _ticks(min(values), max(values))
    height: Callable[[float], float] = log2 if ticks[0] > 0 else float
    chart = pygal.XY(
        title=title,
        style=_STYLE,
        js=(),
        width=640,
        height=340 + 11 * len(curves),
        margin=12,
        margin_bottom=26,
        margin_right=32,
        show_legend=len(curves) > 1,
        legend_at_bottom=True,
        legend_at_bottom_columns=2,
        truncate_legend=36,
        legend_box_size=8,
        dots_size=3,
        show_x_guides=False,
        range=(height(ticks[0]), height(ticks[-1])),
        y_labels=[{"value": height(tick), "label": measure.format(tick)} for tick in ticks],
        xrange=(log2(sizes[0]), log2(sizes[-1])),
        x_labels=[{"value": log2(size), "label": _short(size)} for size in _apart(sizes)],
        disable_xml_declaration=True,
    )
    for place, (name, curve) in enumerate(curves.items()):
        points = [
            {
                "value": (log2(size), height(value)),
                "tooltip": f"{name} at {tokens(size)}: {measure.format(value)}",
            }
            for size, value in sorted(curve.items())
        ]
        # Told apart without colours, too.
        chart.add(name, points, stroke_style={"width": 2, "dasharray": _DASHES[place % 3]})
    svg: str = chart.render(is_unicode=True)
    return _UNUSED.sub("", svg)


def _ticks(low: float, high: float) -> list[float]:
    """From 0 upwards, or where values differ by more than a factor of 20, for a log scale."""
    steps = [step * 10.0**power for power in range(-3, 14) for step in (1, 2, 5)]
    if low > 0 and high / low > 20:
        return steps[bisect_right(steps, low) - 1 : bisect_left(steps, high) + 1]
    step = next(step for step in steps if step * 6 >= high)
    return [step * count for count in range(ceil(high / step) + 1)] if high > 0 else [0, step]


def _short(size: int) -> str:
    return f"{size / 1000:g}k" if size % 1000 == 0 else tokens(size)


def _apart(sizes: list[int]) -> list[int]:
    """Sizes whose labels do not run into each other."""
    room = (log2(sizes[-1]) - log2(sizes[0])) / 8
    kept: list[int] = []
    for size in reversed(sizes):
        if not kept or log2(kept[-1]) - log2(size) >= room:
            kept.append(size)
    return kept[::-1]


# Its tooltips are native ones: neither scripts nor what they would read is needed, and ids would
# be there once for each plot.
_UNUSED = re.compile(
    r'<script.*?</script>|<!--.*?-->|<desc .*?</desc>| id="activate-[^"]*"', re.DOTALL
)
_DASHES = ("", "6,3", "2,2")
# Of middling lightness: seen on white and on black.
_COLORS = (
    *("#2f7ed8", "#d9672c", "#2a9d62", "#b455c9", "#b8860b"),
    *("#d6437b", "#17a2b8", "#7a6ff0", "#8a9a1f", "#8d8d94"),
)
_STYLE = Style(
    background="transparent",
    plot_background="transparent",
    foreground="var(--lmstrix-text)",
    foreground_strong="var(--lmstrix-text)",
    foreground_subtle="var(--lmstrix-dim)",
    guide_stroke_color="var(--lmstrix-line)",
    major_guide_stroke_color="var(--lmstrix-line)",
    guide_stroke_dasharray="0",
    major_guide_stroke_dasharray="0",
    font_family="inherit",
    title_font_size=15,
    label_font_size=12,
    major_label_font_size=12,
    legend_font_size=12,
    stroke_opacity="1",
    opacity="1",
    colors=_COLORS,
)
