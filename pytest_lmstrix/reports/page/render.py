"""Renders the page above pytest-html's table: one self-contained section. Pure.

Each part is rendered on its own: one that fails is left out, and the others are kept.
"""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.resources import files

from markupsafe import Markup, escape

from pytest_lmstrix.core.formatting import NOTHING, count_of, memory, rate, tokens
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.plan.plan import Plan
from pytest_lmstrix.registry.history.earlier import History
from pytest_lmstrix.registry.history.updates import update_text
from pytest_lmstrix.reports.overview.headline import headline
from pytest_lmstrix.reports.overview.standing import counted_models, standing, without_embedding
from pytest_lmstrix.reports.overview.variants import VARIANT_HEADINGS, variant_cells
from pytest_lmstrix.reports.page.changed import change_lines, kinds_text
from pytest_lmstrix.reports.page.details import details_of
from pytest_lmstrix.reports.page.fleet import Fleet, MapCell, fleet_of
from pytest_lmstrix.reports.page.model_rows import (
    STANDING_NAMES,
    ModelRow,
    axis_of_rows,
    model_rows,
)
from pytest_lmstrix.reports.page.plots import METRICS, plot, plot_checks
from pytest_lmstrix.reports.page.strips import strip_of_runs, strip_of_sizes
from pytest_lmstrix.reports.page.todo import cause_groups
from pytest_lmstrix.reports.run_json import RunReport
from pytest_lmstrix.reports.templates import templates

Part = Callable[[str], AbstractContextManager[None]]
"""Catches the errors of the named part, and notes that it is left out."""

PACKED_FROM = 100_000
"""Longer details and maps are compressed; only with JavaScript can they be read then."""
SHOWN_CHANGES = 6
SHOWN_PROBLEMS = 4
SHOWN_NAMES = 4
"""Models named below a problem before the others are folded."""


def render_page(plan: Plan, run: RunReport, history: History, part: Part) -> str:
    """Return the HTML above the table of tests, with its style and script."""
    rows: tuple[ModelRow, ...] = ()
    sections: list[str] = []
    with part("the models of report.html"):
        rows = model_rows(plan, run, history)
    with part("the headline of report.html"):
        sections.append(_headline(run))
    with part("the changes of report.html"):
        lines = change_lines(run, rows)
        updates = [update_text(update) for update in run.updates]
        sections.append(_render("changes", lines=lines, kinds=kinds_text(lines), updates=updates))
    with part("the problems of report.html"):
        anchors = {row.model.id: row.anchor for row in rows}
        sections.append(_render("problems", problems=cause_groups(run, anchors)))
    with part("the table of models of report.html"):
        sections.append(models_table(run, rows))
    with part("the variants of report.html"):
        sections.append(
            _render(
                "variants", variants=run.variants, headings=VARIANT_HEADINGS, cells=variant_cells
            )
        )
    with part("the map of report.html"):
        fleet = fleet_of(plan, run, history)
        sections.append(map_and_plots(fleet, _plots(fleet, part)))
    folder = files("pytest_lmstrix.reports") / "page"
    return _render(
        "page",
        css=Markup(folder.joinpath("page.css").read_text(encoding="utf-8")),
        js=Markup(folder.joinpath("page.js").read_text(encoding="utf-8")),
        sections=[Markup(section) for section in sections],
    )


def _headline(run: RunReport) -> str:
    standings = [standing(run, model) for model in without_embedding(counted_models(run))]
    counts = {each: standings.count(each) for each in STANDING_NAMES if each in standings}
    return _render("headline", headline=headline(run), counts=counts)


def models_table(run: RunReport, rows: Sequence[ModelRow]) -> str:
    """Return the table of models, and the details of each."""
    models = [(row.name, row.anchor, details_of(row, run)) for row in rows]
    details, packed = pack(_render("details", models=models))
    numbers = {
        name: text for name, text in _NUMBERS.items() if any(text(row) != NOTHING for row in rows)
    }
    return _render(
        "models",
        rows=rows,
        details=details,
        packed=packed,
        hosts=sorted({row.host for row in rows if row.host}),
        tags=sorted({tag for row in rows for tag in row.tags}),
        standings={
            name: count
            for name in STANDING_NAMES
            if (count := sum(row.standing == name for row in rows))
        },
        changed=sum(row.changed for row in rows),
        axis=axis_of_rows(rows),
        numbers=numbers,
        cells=lambda row: [text(row) for text in numbers.values()],
        since=any(row.since for row in rows),
    )


def pack(html: str) -> tuple[Markup, str]:
    """Return `html` as it is, or compressed for the script if it is large."""
    if len(html) < PACKED_FROM:
        return Markup(html), ""
    return Markup(""), b64encode(gzip.compress(html.encode(), mtime=0)).decode()


def _gigabytes(size_bytes: int | None) -> str:
    """Return a number without its unit, which is in the caption."""
    return memory(size_bytes).removesuffix(" GB")


_NUMBERS: dict[str, Callable[[ModelRow], str]] = {
    "recommended": lambda row: tokens(row.recommended),
    "declared": lambda row: tokens(row.declared),
    "memory": lambda row: _gigabytes(row.peak_memory_bytes),
    "estimated": lambda row: _gigabytes(row.estimated_memory_bytes),
    "prefill": lambda row: rate(row.prefill),
    "decode": lambda row: rate(row.decode),
}
"""Column -> its text; columns without any value are left out."""


def map_and_plots(fleet: Fleet, plots: Sequence[str]) -> str:
    """Return the map of verdicts by context size, recall by depth, and the `plots`; closed."""
    if not fleet.rows:
        return ""
    content, packed = pack(
        _render(
            "map",
            fleet=fleet,
            others=any(row.others for row in fleet.rows),
            earlier=any(
                cell.target is None
                for row in fleet.rows
                for cell in (*row.cells.values(), *row.others)
            ),
            recall_sizes=_recall_sizes(fleet),
            recall_text=_recall_text,
            plots=[Markup(each) for each in plots],
        )
    )
    return _render("map_around", content=content, packed=packed)


def _plots(fleet: Fleet, part: Part) -> list[str]:
    check, passed = plot_checks(fleet.results)
    plots = []
    for metric in METRICS:
        with part(f"the plot {metric.title!r}"):
            plots.append(plot(metric, check, passed))
    return [each for each in plots if each]


def _recall_sizes(fleet: Fleet) -> list[int]:
    return sorted({
        size for row in fleet.recalls for size, cell in row.cells.items() if cell.recall
    })  # fmt: skip


def _recall_text(cell: MapCell) -> str:
    return "\n".join(
        f"{float(depth):.0%} deep: {'recalled' if known else 'not recalled'}"
        for depth, known in cell.recall
    )


def _with_code(text: str) -> Markup:
    """Return `text` with what is in backticks as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part
        for place, part in enumerate(parts)
    )


def _render(name: str, **values: object) -> str:
    return _TEMPLATES.get_template(f"{name}.html.jinja").render(values)


_TEMPLATES = templates("page")
_TEMPLATES.filters["line"] = one_line
_TEMPLATES.filters["code"] = _with_code
_TEMPLATES.filters["count"] = count_of
_TEMPLATES.globals.update(
    tokens=tokens, strip_of_sizes=strip_of_sizes,
    strip_of_runs=strip_of_runs, standing_names=STANDING_NAMES,
    shown_changes=SHOWN_CHANGES, shown_problems=SHOWN_PROBLEMS, shown_names=SHOWN_NAMES,
)  # fmt: skip
