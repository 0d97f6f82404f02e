"""Data of the fleet map: verdicts by model and context size. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from pytest_lmstrix.core.checks import CHECKS, evidence_of
from pytest_lmstrix.core.formatting import count_of, memory, rate, seconds, tokens
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.types import Case, Model, Result
from pytest_lmstrix.core.verdicts import TRAITS, Verdict
from pytest_lmstrix.hooks.collection import ascii_id
from pytest_lmstrix.plan.plan import Plan
from pytest_lmstrix.registry.history.earlier import History
from pytest_lmstrix.reports.run_json import CaseReport, RunReport
from pytest_lmstrix.system.addresses import remote_host, shown_host

MOST_COLUMNS = 16
"""Sizes with their own column; rarer sizes share the last one."""

SKIPPED = ("-", "unclear")
"""Letter and family of a skipped test; those of a verdict are its traits."""


class MapCell(Struct, frozen=True, kw_only=True):
    """The verdict of one model, check and size."""

    size: int
    sign: str
    family: str
    label: str
    """Tooltip text of several lines."""
    target: str | None = None
    """Id of its row in the table of results; `None` for a result of an earlier run."""
    recall: tuple[tuple[str, bool], ...] = ()
    """Depth and whether the needle there was recalled, in ascending order."""


class Row(Struct, frozen=True, kw_only=True):
    """A model and a check; sizes in tokens."""

    model: str
    check: str
    host: str
    """That of its results, or those, as people know it."""
    declared: int | None
    verified: int | None
    cells: dict[int, MapCell]
    others: tuple[MapCell, ...] = ()
    """Cells of sizes without a column."""

    @property
    def share(self) -> float:
        """Verified share of the declared context, 0..1."""
        return min(1.0, (self.verified or 0) / self.declared) if self.declared else 0.0


class Fleet(Struct, frozen=True, kw_only=True):
    """All rows, and the sizes with a column."""

    sizes: tuple[int, ...]
    rows: tuple[Row, ...]
    results: tuple[Result, ...]
    """Source of the cells."""

    @property
    def legend(self) -> list[tuple[str, str, str]]:
        """Letter, family and meaning of each sign in use."""
        cells = [cell for row in self.rows for cell in (*row.cells.values(), *row.others)]
        used = {cell.sign for cell in cells}
        meanings = [
            (traits.letter, traits.family, verdict.value.replace("_", " "))
            for verdict, traits in TRAITS.items()
        ]
        return [each for each in (*meanings, (*SKIPPED, "skipped, not judged")) if each[0] in used]

    @property
    def hosts(self) -> int:
        return len({shown_host(result.host) for result in self.results})

    @property
    def checks(self) -> int:
        return len({row.check for row in self.rows})

    @property
    def recalls(self) -> list[Row]:
        return [row for row in self.rows if any(cell.recall for cell in row.cells.values())]


def anchor(node_id: str) -> str:
    """Return the HTML id of a test's row."""
    return f"case-{hashlib.sha256(node_id.encode()).hexdigest()[:12]}"


def fleet_of(plan: Plan, run: RunReport, history: History) -> Fleet:
    """Return the map of this run; results of earlier runs on this machine fill its gaps."""
    reports = {model.id: model for model in run.models}
    judged = set(run.node_ids.values())
    unjudged = {_test(case.node_id): case for case in run.cases if case.node_id not in judged}
    found: list[tuple[Row, dict[int, MapCell]]] = []
    used: list[Result] = []
    often: Counter[int] = Counter()
    for planned in plan.all_models():
        model = planned.model
        earlier = earlier_results(model, history, run.machine)
        newest = newest_results([*earlier, *run.results.get(model.id, ())])
        report = reports.get(model.id)
        for check, results in newest.items():
            cells = {size: _cell(result, run) for size, result in results.items()}
            test = f"test_{check}" if check in CHECKS else check
            for size in planned.context_lengths:
                case = Case(model=model, context_length=size)
                if skipped := unjudged.get(f"{test}[{ascii_id(case.id)}]"):
                    cells[size] = _skipped(size, skipped, results.get(size))
            used += results.values()
            own = set(planned.context_lengths) if check in CHECKS else set(cells)
            often.update(own & set(cells))
            row = Row(
                model=one_line(model.id),
                check=check,
                host=one_line(", ".join(sorted({shown_host(it.host) for it in results.values()}))),
                declared=model.context_limit,
                verified=report.verified_context if report else _best(results),
                cells={},
            )
            found.append((row, cells))
    return _with_columns(found, used, often)


def earlier_results(model: Model, history: History, machine: str) -> list[Result]:
    """Return earlier results of the same engine, weights and machine, oldest first."""
    return [
        old
        for old in history.of(model.id)
        if old.machine == machine
        and old.engine == model.engine
        and (model.fingerprint is None or old.fingerprint == model.fingerprint)
    ]


def _test(node_id: str) -> str:
    """Return test name and parameters; the parameters may contain any text."""
    name, bracket, parameters = node_id.partition("[")
    return name.rpartition("::")[2] + bracket + parameters


def newest_results(results: Iterable[Result]) -> dict[str, dict[int, Result]]:
    """Return check -> size -> newest result; a size search fills sizes without a case."""
    newest: dict[str, dict[int, Result]] = {}
    searched: dict[str, dict[int, Result]] = {}
    for result in results:
        own_case = result.origin == "case" and result.check != "limit"
        found = newest if own_case else searched
        found.setdefault(evidence_of(result.check), {})[result.context_length] = result
    for check, sizes in searched.items():
        newest[check] = sizes | newest.get(check, {})
    rank = {check: place for place, check in enumerate(CHECKS)}
    return dict(sorted(newest.items(), key=lambda pair: (rank.get(pair[0], len(rank)), pair[0])))


def _cell(result: Result, run: RunReport) -> MapCell:
    traits = TRAITS[result.verdict]
    node_id = run.node_ids.get((result.model, result.check, result.context_length))
    now = result.run == run.run
    return MapCell(
        size=result.context_length,
        sign=traits.letter,
        family=traits.family,
        label="\n".join(_label_lines(result, now)),
        target=anchor(node_id) if node_id is not None and now else None,
        recall=tuple(sorted((result.recall or {}).items(), key=lambda pair: float(pair[0]))),
    )


def _label_lines(result: Result, now: bool) -> Iterable[str]:
    place = f" on {one_line(host)}" if (host := remote_host(result.host)) else ""
    yield f"{one_line(result.model)}, {one_line(result.check)}: {result.verdict}{place}"
    granted = result.granted_context_length
    suffix = f", granted {tokens(granted)}" if granted is not None else ""
    yield f"asked {count_of(result.context_length, 'token')}{suffix}"
    yield f"load {seconds(result.load_seconds)}, TTFT {seconds(result.ttft_seconds)}"
    prefill = rate(result.prefill_tokens_per_second)
    yield f"prefill {prefill}, decode {rate(result.decode_tokens_per_second)} tokens/s"
    estimate = result.estimated_memory_bytes
    estimated = f", estimated {memory(estimate)}" if estimate is not None else ""
    yield f"peak memory {memory(result.peak_memory_bytes)}{estimated}"
    if result.detail:
        yield one_line(result.detail, 160)
    yield from (one_line(note, 160) for note in result.notes)
    if not now:
        yield f"found on {result.at:%Y-%m-%d}, not asked again"


def _skipped(size: int, case: CaseReport, before: Result | None) -> MapCell:
    lines = [f"{case.outcome} at {count_of(size, 'token')}", one_line(case.reason)]
    if before is not None:
        lines.append(f"{before.verdict} on {before.at:%Y-%m-%d}")
    sign, family = SKIPPED
    return MapCell(
        size=size,
        sign=sign,
        family=family,
        label="\n".join(lines),
        target=anchor(case.node_id),
    )


def _best(results: dict[int, Result]) -> int | None:
    """Return the largest passing size below the first failure."""
    best = None
    for size in sorted(results):
        if results[size].verdict is not Verdict.OK:
            break
        best = size
    return best


def _with_columns(
    found: list[tuple[Row, dict[int, MapCell]]], used: list[Result], often: Counter[int]
) -> Fleet:
    sizes = sorted(size for size, _ in often.most_common(MOST_COLUMNS))
    rows = tuple(
        Row(
            model=row.model,
            check=row.check,
            host=row.host,
            declared=row.declared,
            verified=row.verified,
            cells={size: cell for size, cell in cells.items() if size in sizes},
            others=tuple(cells[size] for size in sorted(cells) if size not in sizes),
        )
        for row, cells in found
    )
    return Fleet(sizes=tuple(sizes), rows=rows, results=tuple(used))
