"""What is shown of one model when it is opened: results, curves and history. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import compress, groupby

from msgspec import Struct

from pytest_lmstrix.checks.advice import advice_for
from pytest_lmstrix.core.formatting import (
    NOTHING,
    capabilities_text,
    count_of,
    memory,
    rate,
    seconds,
    tokens,
)
from pytest_lmstrix.core.sanitize import clean, one_line
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import TRAITS, Verdict
from pytest_lmstrix.registry.history.since import since_text
from pytest_lmstrix.reports.page.fleet import anchor
from pytest_lmstrix.reports.page.model_rows import ModelRow
from pytest_lmstrix.reports.page.plots import METRICS, Metric, Scale
from pytest_lmstrix.reports.run_json import RunReport

CURVE_WIDTH, CURVE_HEIGHT = 180, 40
_REPLY = 1_000
"""Characters of a reply that are shown; the registry has all."""


class ResultLine(Struct, frozen=True, kw_only=True):
    """One result of the model, formatted."""

    cells: tuple[str, ...]
    """One for each of the headings."""
    letter: str
    family: str
    verdict: str
    target: str
    """Id of its row in the table of tests; empty for a result of an earlier run."""
    earlier: str
    """The date, if it is of an earlier run."""
    recall: tuple[tuple[str, bool], ...]
    """Depth in percent and whether the needle there was recalled."""


class Reason(Struct, frozen=True, kw_only=True):
    """The words about results, once for those that have the same."""

    where: str
    """Such as `full at 8,192; 32,767`."""
    verdict: str
    detail: str
    advice: str
    notes: tuple[str, ...]
    replies: tuple[str, ...]


class Curve(Struct, frozen=True, kw_only=True):
    """A measure by context size."""

    title: str
    text: str
    points: str
    """Of an SVG polyline."""


class VerdictPeriod(Struct, frozen=True, kw_only=True):
    """Successive runs with the same verdict and engine version."""

    start: str
    end: str
    runs: str
    verdict: str
    family: str
    version: str


class ModelDetails(Struct, frozen=True, kw_only=True):
    """Everything below the row of a model."""

    facts: tuple[tuple[str, str], ...]
    since: tuple[tuple[str, str], ...]
    """Check and sentence."""
    headings: tuple[str, ...]
    """The columns that any result fills."""
    lines: tuple[ResultLine, ...]
    reasons: tuple[Reason, ...]
    curves: tuple[Curve, ...]
    periods: tuple[VerdictPeriod, ...]
    """The newest first."""


_HEADINGS = ("check", "context", "granted", "load", "TTFT", "prefill tokens/s", "decode tokens/s",
             "memory")  # fmt: skip


def details_of(row: ModelRow, run: RunReport) -> ModelDetails:
    """Return what is known of the model of `row`."""
    cells = [_cells(result) for result in row.results]
    used = [any(line[place] != NOTHING for line in cells) for place in range(len(_HEADINGS))]
    return ModelDetails(
        facts=tuple((name, one_line(text)) for name, text in _facts(row).items() if text),
        since=tuple(
            (one_line(since.check, 60), one_line(since_text(since, today=run.finished)))
            for since in row.report.since
            if since.machine == run.machine
        ),
        headings=tuple(compress(_HEADINGS, used)),
        lines=tuple(
            _line(result, run, tuple(compress(line, used)))
            for result, line in zip(row.results, cells, strict=True)
        ),
        reasons=tuple(_reasons(row.results)),
        curves=tuple(filter(None, (_curve(metric, row.results) for metric in METRICS))),
        periods=tuple(reversed(list(_periods(row.runs)))),
    )


def _facts(row: ModelRow) -> dict[str, str]:
    model = row.model
    last = row.results[-1] if row.results else None
    proofs = row.report.capability_proofs
    capable = proofs or model.capabilities
    return {
        "engine": row.engine,
        "host": row.host,
        "weights": model.fingerprint or (last.fingerprint if last else None) or "",
        "size": memory(model.size_bytes) if model.size_bytes is not None else "",
        "architecture": " ".join(filter(None, (model.architecture, model.quantization))),
        "settings": last.settings if last else "",
        "capabilities": capabilities_text(model.capabilities, proofs) if capable else "",
        "deep": row.report.tiers.text if row.report.tiers else "",
        "tags": ", ".join(model.tags),
    }


def _cells(result: Result) -> tuple[str, ...]:
    granted = result.granted_context_length
    return (
        one_line(result.check, 60),
        tokens(result.context_length),
        NOTHING if granted == result.context_length else tokens(granted),
        seconds(result.load_seconds),
        seconds(result.ttft_seconds),
        rate(result.prefill_tokens_per_second),
        rate(result.decode_tokens_per_second),
        memory(result.peak_memory_bytes),
    )


def _line(result: Result, run: RunReport, cells: tuple[str, ...]) -> ResultLine:
    traits = TRAITS[result.verdict]
    now = result.run == run.run
    node_id = run.node_ids.get((result.model, result.check, result.context_length))
    recall = sorted((result.recall or {}).items(), key=lambda pair: float(pair[0]))
    return ResultLine(
        cells=cells,
        letter=traits.letter,
        family=traits.family,
        verdict=result.verdict.replace("_", " "),
        target=anchor(node_id) if now and node_id is not None else "",
        earlier="" if now else f"{result.at:%Y-%m-%d}",
        recall=tuple((f"{float(depth):.0%}", known) for depth, known in recall),
    )


_Words = tuple[str, Verdict, str, tuple[str, ...], tuple[str, ...]]


def _reasons(results: Iterable[Result]) -> Iterator[Reason]:
    same: dict[_Words, list[Result]] = {}
    for result in results:
        notes = (*result.notes, *(("needed a second try",) if result.retried else ()))
        if result.origin == "case" and (result.detail or notes or result.replies):
            key = result.check, result.verdict, result.detail, notes, result.replies
            same.setdefault(key, []).append(result)
    for key, members in same.items():
        notes = key[3]
        first = members[0]
        sizes = "; ".join(tokens(each.context_length) for each in members)
        yield Reason(
            where=f"{one_line(first.check, 60)} at {sizes}",
            verdict=first.verdict.replace("_", " "),
            detail=clean(first.detail, 2_000),
            advice=advice_for(first),
            notes=tuple(one_line(note, 300) for note in notes),
            replies=tuple(clean(reply, _REPLY) for reply in first.replies),
        )


def _curve(metric: Metric, results: Sequence[Result]) -> Curve | None:
    """Return the curve of the passes of one check, if there are two sizes at least."""
    curves: dict[str, dict[int, float]] = {}
    for result in results:
        value = metric.value(result)
        if result.verdict.evidence == "good" and value is not None:
            curves.setdefault(result.check, {})[result.context_length] = value
    check = max(curves, key=lambda each: len(curves[each]), default="")
    values = curves.get(check, {})
    if len(values) < 2:
        return None
    low, high = min(values), max(values)
    x = Scale(low=low, high=high, start=4, end=CURVE_WIDTH - 4, logarithmic=True)
    top = max(*values.values(), 1e-9)
    y = Scale(low=0, high=top, start=CURVE_HEIGHT - 3, end=4, logarithmic=False)
    first, last = values[low], values[high]
    return Curve(
        title=f"{metric.title} ({one_line(check, 60)})",
        text=f"{metric.format(first)} at {tokens(low)}, {metric.format(last)} at {tokens(high)}",
        points=" ".join(f"{x(size):.0f},{y(value):.0f}" for size, value in sorted(values.items())),
    )


def _periods(runs: Sequence[Result]) -> Iterator[VerdictPeriod]:
    for (verdict, version), same in groupby(runs, lambda each: (each.verdict, each.engine_version)):
        members = list(same)
        yield VerdictPeriod(
            start=_day(members[0].at),
            end=_day(members[-1].at),
            runs=count_of(len(members), "run"),
            verdict=verdict.replace("_", " "),
            family=TRAITS[verdict].family,
            version=one_line(version or ""),
        )


def _day(at: date) -> str:
    return f"{at:%Y-%m-%d}"
